"""Readers of data sets: one file for each layout, or for the layouts of one kind, in which they are released."""
