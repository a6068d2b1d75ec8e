"""Command line, ONNX, engine building and parity. May import every other room."""
