"""Decodes media files and self-contained frames to PCM in confined processes."""
