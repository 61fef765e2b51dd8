"""Plans: how to act, as data that can run without I/O. One file per kind; file name = catalogue name."""
