"""Engines: one file a backend, all behind the `Embedder` protocol."""
