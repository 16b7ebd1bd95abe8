"""Live peers, each in its own environment, with the same speech as ``bench.live``."""
