"""Reads and replaces trace context, which a record may carry in a header of its own (W3C Trace Context)."""

from collections.abc import Collection, Mapping

from kaption_schemas.headers import TRACE, Headers, text_headers, trace_context


def is_traced(headers: Headers) -> bool:
    """Whether a record carries trace context."""
    return any(name in TRACE for name, _ in headers)


def trace_of(headers: Headers) -> dict[str, str]:
    """The trace headers of a record as they are, valid or not."""
    return {name: value for name, value in text_headers(headers).items() if name in TRACE}


def clean_trace_of(headers: Headers) -> dict[str, str]:
    """Read the trace context that goes on with the records made of this one: a valid ``traceparent``."""
    return trace_context(text_headers(headers))


def with_trace(headers: Headers, carrier: Mapping[str, str], fields: Collection[str]) -> Headers:
    """``headers`` with ``carrier`` in place of what they had of ``fields``, a propagator's headers."""
    kept = [(name, value) for name, value in headers if name not in fields]
    return [*kept, *((name, value.encode()) for name, value in carrier.items())]
