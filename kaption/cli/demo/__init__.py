"""``kaption demo`` plays speech through the pipeline and scores the captions that come back."""
