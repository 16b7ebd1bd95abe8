"""The command line: up, publish, follow, topics, dlq, demo, doctor, version."""
