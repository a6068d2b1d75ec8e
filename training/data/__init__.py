"""Readers of data sets: pairs of images and their positions. They need NumPy, but not torch."""
