"""Map tiles of the web's scheme: a folder of them, or one file."""
