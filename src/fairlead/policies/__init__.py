"""Policies: which plan to run, with what probability. One file per method; file name = catalogue name."""
