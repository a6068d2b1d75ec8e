"""Augmentation of training pairs."""
