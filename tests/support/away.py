"""How long the tests take the broker and the object store away: ``KAPTION_AWAY_SECONDS`` (5,60) says it."""

import os

#: Seconds, one test each.
AWAY = [int(seconds) for seconds in os.environ.get("KAPTION_AWAY_SECONDS", "5,60").split(",")]
#: What the longest of them adds to a test's own timeout, seconds.
LONGEST = max(AWAY)
