"""Readers of data sets: which image belongs to which, and where. They need NumPy only, never torch."""
