"""Sheets of images, put together by Pillow."""
