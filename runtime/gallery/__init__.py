"""Galleries: references with their descriptors and positions."""
