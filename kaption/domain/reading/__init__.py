"""Reading: which transcripts are new to a reader, and how finals become captions."""
