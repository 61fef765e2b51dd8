"""Worlds: the only places that do I/O or know a clock. The same plan runs in each."""
