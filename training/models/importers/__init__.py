"""Importers of official checkpoints: one file per model. The releases' names appear only here."""
