"""Holds the rules: validation, redaction, sessions, agreement, batch plans, captions. No async, clock, I/O, logging or model."""
