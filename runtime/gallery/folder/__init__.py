"""Galleries kept in a folder."""
