"""Models: one file each, with its defaults beside it."""
