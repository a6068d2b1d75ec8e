"""Evaluation: recall, transfer between areas, published figures."""
