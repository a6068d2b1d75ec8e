"""GeoDTR and GeoDTR+, and what models of their form share."""
