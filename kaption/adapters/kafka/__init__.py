"""Kafka: clients, topics, the reading of batches, the group's members, and the embedded broker."""
