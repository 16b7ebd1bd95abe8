"""What a user types: up, publish, follow, topics, dlq, doctor, version."""
