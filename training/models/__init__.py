"""Models: one file each, with its defaults beside it; GeoDTR and TransGeo have two, and a folder each."""
