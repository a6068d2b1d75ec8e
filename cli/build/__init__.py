"""Commands that build, prove and measure engines."""
