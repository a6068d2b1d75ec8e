"""Data sets: pairs of images and their positions, checked, prepared and cut. They need NumPy, but not torch."""
