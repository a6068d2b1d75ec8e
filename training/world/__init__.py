"""A generated cross-view world: an endless seeded map, seen from above and from the street."""
