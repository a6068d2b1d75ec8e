"""Backends: from a typed ONNX graph to an engine, a file or folder a backend."""
