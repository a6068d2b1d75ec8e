"""The inference runtime: preprocessing, engines, gallery, search and localisation.

Needs NumPy and Pillow, never torch or onnx.
"""
