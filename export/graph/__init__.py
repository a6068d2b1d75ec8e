"""ONNX graphs: export, checks, and what is put into them."""
