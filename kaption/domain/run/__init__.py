"""One run of a stream: audio in order, segments, windows to decode, and what is published of them."""
