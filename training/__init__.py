"""PyTorch: models, losses, data sets, the training loop, and the generated world. Imports `geodtr.runtime` only."""
