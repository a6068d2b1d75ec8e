"""Initial weights: of checkpoints, of torchvision, and of files that others published."""
