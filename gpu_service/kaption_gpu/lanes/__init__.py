"""Processes one partition's records in order and exactly once: takes over, reads, remembers, commits."""
