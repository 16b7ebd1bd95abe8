"""Media files and self-contained frames, decoded to PCM in confined processes."""
