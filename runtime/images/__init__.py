"""Images: decoding, resizing, the polar transform, preprocessing, and where frames come from."""
