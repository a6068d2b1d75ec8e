"""The HTTP API: its paths, who may ask, forms and bodies, pictures and its specification."""
