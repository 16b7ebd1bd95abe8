"""Adapters to the world: settings, Kafka, S3, media decoding, telemetry. The domain must not import it."""
