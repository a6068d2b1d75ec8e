"""Building engines: one file a backend."""
