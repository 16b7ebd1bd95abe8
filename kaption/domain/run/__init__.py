"""Turns one run of a stream into transcripts: orders its audio, ends segments, offers windows to decode, publishes texts."""
