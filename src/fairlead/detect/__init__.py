"""Detectors: plain functions and small models that find things in text, without I/O. Signals and actions are made of them."""
