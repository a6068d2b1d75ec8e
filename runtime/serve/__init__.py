"""The HTTP server and its page: images in, candidates and fixes out, and a live view (extra `serve`)."""
