"""Losses on descriptors."""
