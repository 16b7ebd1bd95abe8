"""One partition's records, in order and once: taking over, reading, remembering, committing."""
