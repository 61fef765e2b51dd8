"""Embeddings: text -> a vector. One file per method; file name = catalogue name."""
