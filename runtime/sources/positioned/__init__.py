"""A folder of tile images, and their positions: by names, EXIF or a table."""
