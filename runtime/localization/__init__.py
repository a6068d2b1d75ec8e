"""Localisation: from query images to tiles and one position."""
