"""The command `localize`: where an image was taken. A group of options is a file."""
