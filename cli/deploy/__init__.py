"""Commands that run on a vehicle: they need the lean runtime only."""
