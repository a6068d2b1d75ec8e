"""A training run in a folder: its files, its state, its order of pairs, and how it stops."""
