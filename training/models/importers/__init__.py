"""Import of official checkpoints: reading their files, and an importer per model, the only place of their names."""
