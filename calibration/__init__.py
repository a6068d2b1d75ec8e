"""Images to calibrate on, and the ranges their activations take. Imports `geodtr.runtime` only."""
