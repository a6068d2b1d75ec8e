"""Resizing, the same pixels on every machine."""
