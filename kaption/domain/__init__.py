"""What is true: validation, redaction, sessions, agreement, batch plans, captions. No async, clock, I/O, logging or model."""
