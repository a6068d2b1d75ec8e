"""Speed, memory and time to open."""
