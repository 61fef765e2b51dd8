"""Signals: facts observed about a query before any model is called. One file each; file name = catalogue name."""
