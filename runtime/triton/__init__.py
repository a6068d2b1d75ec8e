"""Triton Inference Server: a model repository of a bundle and a gallery, and the Python model in it."""
