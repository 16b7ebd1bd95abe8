"""Lists the reason codes: why a record was refused, a gap declared or a run closed. Codes are a contract: never rename one.

docs/operations.md is generated from this table.
"""

from enum import StrEnum


class Reason(StrEnum):
    """A stable code; ``meaning`` says what was wrong and what would be right."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> "Reason":
        """Make a member with the code as its value and the sentence as its meaning."""
        self = str.__new__(cls, code)
        self._value_ = code
        self.meaning = meaning
        return self

    @staticmethod
    def read(code: str) -> "Reason | None":
        """The reason of a code that was written somewhere; None for one that this version does not know."""
        try:
            return Reason(code)  # type: ignore[call-arg]  # by value: mypy reads __new__
        except ValueError:
            return None

    # Judged by the validate stage, from the record alone.
    NOT_CLOUDEVENTS = (
        "not_cloudevents",
        "A required ce_* header is missing; send ce_specversion, ce_id, ce_source, ce_type.",
    )
    UNSUPPORTED_VERSION = (
        "unsupported_version",
        "ce_specversion is not 1.0, or ce_dataschema names a version unknown here.",
    )
    UNKNOWN_TYPE = "unknown_type", "ce_type is none of the types that this topic takes."
    UNKNOWN_TENANT = "unknown_tenant", "ce_tenant names another tenant than the topic's; leave it out."
    BAD_HEADERS = "bad_headers", "Headers are not UTF-8, more than 64, repeated, or over 16 KiB in all."
    BAD_KEY = (
        "bad_key",
        "The record's key must be the stream's name: 1-128 of A-Z a-z 0-9 . _ -, and not . or .. alone.",
    )
    BAD_RUN = "bad_run", "ce_run must be a ULID (26 characters, upper case)."
    BAD_SEQUENCE = "bad_sequence", "ce_sequence must be an integer from 0 to 10^12."
    BAD_FIRSTSAMPLE = "bad_firstsample", "ce_firstsample must be an integer from 0 to 10^12."
    BAD_MUTE = "bad_mute", "ce_mute must be sample ranges a-b,c-d, ascending, a < b, at most 64."
    EMPTY_BODY = "empty_body", "The record has no body."
    BODY_TOO_LARGE = "body_too_large", "The body is larger than this type may be."
    BAD_JSON = "bad_json", "The body is not a JSON object in UTF-8, or nests deeper than 16."
    INVALID_BODY = "invalid_body", "A field of the body is missing, unknown or out of its range."
    BAD_VOCABULARY = "bad_vocabulary", "Vocabulary: at most 200 terms of 1-64 printable characters, 4 KiB in all."
    BAD_METADATA = (
        "bad_metadata",
        "Metadata: at most 64 entries, names of up to 128 bytes, values of up to 1 KiB, 8 KiB in all.",
    )
    CLOCK_SKEW = "clock_skew", "The wall-clock anchor is more than a day away from the broker's clock."
    UNKNOWN_ENTITY = (
        "unknown_entity",
        "The redaction policy names an entity that no recogniser finds; there are CREDIT_CARD, EMAIL_ADDRESS, IBAN_CODE, "
        "IP_ADDRESS, PHONE_NUMBER, US_ITIN and US_SSN.",
    )
    MISSING_FORMAT = "missing_format", "content-type must state the audio's format."
    UNSUPPORTED_FORMAT = (
        "unsupported_format",
        (
            "The encoding, rate or number of channels is not supported; frames are audio/pcm;rate=R;channels=C;encoding=E with E "
            "s16le (what others call linear16), mulaw or alaw, or audio/flac, audio/ogg or audio/wav."
        ),
    )
    ODD_BYTES = "odd_bytes", "The body is not a whole number of samples of the declared format."
    FRAME_TOO_SHORT = "frame_too_short", "A frame is shorter than 20 ms."
    FRAME_TOO_LONG = "frame_too_long", "A frame is longer than 1000 ms."
    UNDECODABLE = "undecodable", "The audio could not be decoded as its content-type says."
    UNDECODABLE_BATCH = (
        "undecodable_batch",
        "The batch could not be read: its codec, checksum or content, more than 8 MiB decompressed, 20,000 records or 1,000 headers a record.",
    )
    TOO_COSTLY = "too_costly", "Checking the record took longer than the limit."
    INTERNAL_ERROR = (
        "internal_error",
        "The service failed on this record each time, or failed on the run and closed it; that is a fault of Kaption.",
    )
    # Judged by the file agent.
    NOT_A_CREATION = "not_a_creation", "The notification is for something other than a new object."
    OUTSIDE_PREFIX = "outside_prefix", "The bucket or key is not within the tenant's configured place."
    OBJECT_MISSING = "object_missing", "There is no such object or version."
    OBJECT_CHANGED = "object_changed", "Size, ETag, version or sha256 are not those that the event names."
    OBJECT_TOO_LARGE = "object_too_large", "The object is larger than the configured limit."
    OBJECT_EXCEEDS_SCRATCH = (
        "object_exceeds_scratch",
        "The object is larger than the disk that the service has for objects in work.",
    )
    OBJECT_UNREADABLE = (
        "object_unreadable",
        "The object store answers, but failed for this object each time that it was tried.",
    )
    OBJECT_ENCRYPTED = "object_encrypted", "The object is encrypted with a key that the service does not have."
    NOT_MEDIA = "not_media", "The object is no audio or video of a supported container."
    NO_AUDIO = "no_audio", "The object holds no audio track."
    TRUNCATED = "truncated", "The object ends before its audio does."
    TOO_LONG = "too_long", "The audio is longer than the configured limit."
    TOO_SPARSE = "too_sparse", "The time stamps span far more than the sound in the object."
    DECODE_LIMIT = "decode_limit", "Decoding needed more memory or time than it may have."
    # Judged by the session, which remembers the run.
    RUN_CLOSED = "run_closed", "The run is closed; start a new one."
    SEQUENCE_CONFLICT = (
        "sequence_conflict",
        "The sequence was used before, with other bytes, or too long ago to compare the bytes.",
    )
    SEQUENCE_AHEAD = "sequence_ahead", "The sequence is further ahead than the reorder bound allows."
    LATE = "late", "The frame arrived after its gap was declared."
    SAMPLES_OVERLAP = "samples_overlap", "ce_firstsample lies before the end of the frame before it."
    SAMPLES_JUMP = "samples_jump", "ce_firstsample jumps further ahead than an hour, or than the clock."
    FORMAT_CHANGED = "format_changed", "Rate or channels differ from the run's; start a new run."
    ALREADY_STARTED = "already_started", "The run has started already, by a started event or a frame."
    BAD_END = "bad_end", "ended names a last sequence before one that was received."
    FASTER_THAN_REALTIME = (
        "faster_than_realtime",
        "A live run is over 30 s ahead of the clock; publish a file as an object.",
    )
    # Judged by the pool.
    UNSUPPORTED_LANGUAGE = "unsupported_language", "The model does not know this language."
    UNSUPPORTED_TASK = "unsupported_task", "The model cannot do this task."
    OVERLOADED = "overloaded", "The pool is full; new runs are refused for now."
    TOO_MANY_RUNS = "too_many_runs", "The tenant has as many open live runs as it may have; end some first."
    AUDIO_UNAVAILABLE = "audio_unavailable", "The normalised audio that a chunk refers to could not be read."
    DECODE_FAILED = "decode_failed", "The model failed on this audio each time; its final has no text."
    # Why audio is missing, and why a run closed.
    LOST = "lost", "Frames never arrived within the reorder bound."
    RETENTION = "retention", "The log no longer holds records that were not yet transcribed."
    ENDED = "ended", "The publisher ended the run."
    ABORTED = "aborted", "The publisher aborted the run: it did not send all of the audio."
    SUPERSEDED = "superseded", "A new run of the same stream began."
    IDLE = "idle", "No record arrived for the idle limit."
    MODEL_CHANGED = (
        "model_changed",
        "The pool now has other weights than the run began with; start a new run.",
    )
    UNKNOWN_REASON = (
        "unknown_reason",
        "A newer version of Kaption wrote this with a code that this version does not know.",
    )


#: The reasons with which a transcribed run ends; with any other it was refused or abandoned.
NORMAL_ENDS = frozenset({Reason.ENDED, Reason.SUPERSEDED, Reason.IDLE})
