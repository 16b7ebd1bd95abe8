"""What publishers send: events, notifications and formats, judged, redacted and cut."""
