"""Running plans of TensorRT and TensorRT-RTX."""
