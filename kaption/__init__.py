"""Kaption: live transcripts on Kafka."""
