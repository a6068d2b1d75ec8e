"""Training presets, one TOML file each."""
