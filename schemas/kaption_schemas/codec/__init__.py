"""Every record that travels, to bytes and back: keys, ids, headers, content types, bodies and dead letters.

``encode_*`` make a record, ``read_*`` take one apart; nothing outside this package writes or names a header (import-linter and
``tests/contract/test_codec.py`` hold that). A body is parsed here once and travels parsed, in an ``Event``. What a publisher may
send within these forms is judged in ``kaption.domain.intake``; the bodies of the state topic are the pool's own.
"""

from kaption_schemas.codec.events import (
    claims_event,
    claims_raw_sound,
    encode_event,
    encode_published,
    encode_relayed,
    is_relayed,
    read_event,
    read_inner,
    read_inner_body,
    read_published,
    read_refused,
    read_relayed,
    read_sound,
)
from kaption_schemas.codec.forms import Body, Event, FilePiece, Head, Message, Origin, Raw, Sound, Writer
from kaption_schemas.codec.letters import (
    DeadLetter,
    encode_dead_letter,
    is_undecodable,
    read_dead_letter,
    undecodable_headers,
)
from kaption_schemas.codec.outputs import (
    TRANSCRIPTS,
    SnapshotMarks,
    encode_claim,
    encode_lane,
    encode_snapshot,
    encode_transcript,
    read_state,
    read_transcript,
)
from kaption_schemas.codec.trace import clean_trace_of, is_traced, trace_of, with_trace
from kaption_schemas.headers import Headers

__all__ = [
    "TRANSCRIPTS",
    "Body",
    "DeadLetter",
    "Event",
    "FilePiece",
    "Head",
    "Headers",
    "Message",
    "Origin",
    "Raw",
    "SnapshotMarks",
    "Sound",
    "Writer",
    "claims_event",
    "claims_raw_sound",
    "clean_trace_of",
    "encode_claim",
    "encode_dead_letter",
    "encode_event",
    "encode_lane",
    "encode_published",
    "encode_relayed",
    "encode_snapshot",
    "encode_transcript",
    "is_relayed",
    "is_traced",
    "is_undecodable",
    "read_dead_letter",
    "read_event",
    "read_inner",
    "read_inner_body",
    "read_published",
    "read_refused",
    "read_relayed",
    "read_sound",
    "read_state",
    "read_transcript",
    "trace_of",
    "undecodable_headers",
    "with_trace",
]
