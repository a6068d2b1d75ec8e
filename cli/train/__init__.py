"""Commands that make data, train and evaluate."""
