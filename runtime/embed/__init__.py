"""Embedding images in batches."""
