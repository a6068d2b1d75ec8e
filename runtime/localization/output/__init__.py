"""Answers as files: rows, geographic documents, and a map for a browser."""
