"""Precision as a property of the ONNX file: fp16, int8, fp8, and the choice of operators."""
