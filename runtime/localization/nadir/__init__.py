"""Frames that look straight down: searched at several headings and ground sizes, then confirmed on the map."""
