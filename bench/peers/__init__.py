"""Live peers, each in an environment of its own, played the same speech as ``bench.live``."""
