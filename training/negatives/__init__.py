"""Hard negatives: which pairs share a batch because a model easily mistakes them for each other."""
