"""Building plans of TensorRT and TensorRT-RTX."""
