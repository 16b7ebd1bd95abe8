"""What readers get: transcripts that are news, and captions."""
