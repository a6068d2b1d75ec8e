"""A bundle and its gallery as one signed file, and the folder on a device into which such files are installed."""
