"""Drivers for targets. One file per wire format; file name = catalogue name."""
