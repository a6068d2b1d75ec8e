"""Maps in one file, cut into tiles of a ground size."""
