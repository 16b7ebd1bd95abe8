"""Decoding: the port to a backend, and the guards against what a model makes up."""
