"""What parity compares: descriptors, ranks, layers, stages and precisions of two models."""
