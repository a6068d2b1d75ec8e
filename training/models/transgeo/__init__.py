"""TransGeo: both stages of its training are models."""
