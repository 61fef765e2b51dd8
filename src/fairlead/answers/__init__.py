"""Answers: what a text says, in a normal form, so that two answers can be compared. One file per way to read; file name = catalogue name."""
