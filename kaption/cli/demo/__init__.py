"""``kaption demo``: speech through the pipeline and back as captions, with a score."""
