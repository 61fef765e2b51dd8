"""Faces: the API shapes that clients may speak, one file each (see `base`)."""
