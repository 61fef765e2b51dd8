"""Predictors: what each target would bring. One file per method; file name = catalogue name."""
