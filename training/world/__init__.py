"""A generated cross-view world: an endless seeded map, rendered from above and from the road."""
