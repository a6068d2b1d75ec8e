"""Where tiles come from: one file a kind of source, all behind the `TileSource` protocol."""
