"""Caches: where answers are kept under keyed hashes, to be given again."""
