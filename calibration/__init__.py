"""Calibration images and activation ranges. Imports only `geodtr.runtime`."""
