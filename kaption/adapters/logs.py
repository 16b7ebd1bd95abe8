"""Writes logs: one JSON object a line on stderr, without transcript text.

A line may hold the message of our own loggers, scalar ``extra`` fields, and the type and place of an exception. It never
holds the message of an exception, because a validation error quotes its input. It never holds a library's arguments
either: Faust prints the whole record when publishing fails, and asyncio prints the exception of a lost task (HAZARDS,
aiokafka 9 and faust 9).
"""

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from types import FrameType, TracebackType
from typing import Any, TextIO
from typing import Final as Const

from kaption.adapters.settings import Settings

#: Each of our packages has this name, or a name that begins with it and an underscore.
OWN: Const = "kaption"
#: Libraries that set a level of their own. The root's level applies to all others.
LIBRARIES: Const = (
    "aiohttp",
    "aiokafka",
    "asyncio",
    "faster_whisper",
    "faust",
    "kafka",
    "minio",
    "mode",
    "opentelemetry",
    "presidio-analyzer",
    "py.warnings",
    "urllib3",
)
_STANDARD: Const = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MAX_MESSAGE: Const = 500
_FRAMES: Const = 12
_PAUSE_SECONDS: Const = 10.0
#: Messages of libraries that are remembered; an f-string makes many.
_MOST_SEEN: Const = 1000
#: Stack frames from the formatter to the caller that logs, through ``logging`` and a library's own wrappers.
_CALLERS: Const = 16
#: Messages of asyncio's compiled tasks and futures.
_COMPILED: Const = (
    "Task exception was never retrieved",
    "Future exception was never retrieved",
    "Task was destroyed but it is pending!",
)
#: A shorter string may match the beginning of a message by chance.
_FEWEST_WRITTEN: Const = 5
_PLACEHOLDER: Const = re.compile(r"%(?:\(\w+\))?[-+ #0]*[\d*]*(?:\.[\d*]+)?[a-zA-Z]")


def _own(name: str) -> bool:
    return name.partition(".")[0].partition("_")[0] == OWN


def _plain(value: object) -> object:
    """Scalars, and mappings of names to numbers, unchanged. Other values become their type's name: a repr may hold a record."""
    if isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, int | float) for k, v in value.items()):
        return value
    return value if value is None or isinstance(value, str | int | float | bool) else type(value).__name__


def _library_argument(value: object) -> str:
    """A library's argument for the log: numbers and exception types unchanged, other values only as their type's name."""
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, type):
        return value.__name__
    return f"<{type(value).__name__}>"


def _library_message(record: logging.LogRecord) -> str:
    """The template of a library's message with scrubbed arguments.

    A message without arguments may already contain its values, as an f-string does. Then only the beginning that is a
    string in the calling code is kept.
    """
    template = record.msg if isinstance(record.msg, str) else f"<{type(record.msg).__name__}>"
    args = record.args
    if not args:
        written = _written(template).partition("\n")[0].strip()
        return written or f"at {record.pathname.rpartition('site-packages/')[2]}:{record.lineno}"
    template = template.partition("\n")[0]
    values = iter(args.values() if isinstance(args, dict) else args)
    return _PLACEHOLDER.sub(lambda _: _library_argument(next(values, None)), template)


def _written(message: str) -> str:
    """The longest beginning of ``message`` that is a string in the caller's code."""
    frame: FrameType | None = sys._getframe(1)
    found = next(filter(message.startswith, _COMPILED), "")
    for _ in range(_CALLERS):
        if frame is None:
            break
        for constant in frame.f_code.co_consts:
            if isinstance(constant, str) and len(found) < len(constant) and message.startswith(constant):
                found = constant
        frame = frame.f_back
    return found if len(found) >= _FEWEST_WRITTEN else ""


def _where(trace: TracebackType | None) -> list[str]:
    """The innermost frames as ``file:line function``, without source lines, which may hold literals."""
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    return [f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno} {frame.name}" for frame in frames]


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as fields: its type, a reason code if it carries one, the types that caused it, and where.

    The message is left out: it may quote a record.
    """
    out: dict[str, Any] = {"type": type(error).__name__, "at": _where(error.__traceback__)}
    reason = getattr(error, "reason", None)
    if isinstance(reason, str) and re.fullmatch(r"[a-z0-9_]{1,40}", reason):
        out["reason"] = str(reason)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        out["cause"] = type(cause).__name__
    return out


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time (UTC), level, process, logger, event, the caller's extra fields, error.

    Our own lines have an ``event``, a stable name in snake_case. A library's line has its scrubbed ``message`` instead.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line end."""
        own = _own(record.name)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
        }
        line["event" if own else "message"] = (record.getMessage() if own else _library_message(record))[:_MAX_MESSAGE]
        if own:
            line |= {key: _plain(value) for key, value in vars(record).items() if key not in _STANDARD}
        elif repeats := getattr(record, "repeats", 0):
            line["repeats"] = repeats
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


class _Allowed:
    """Decides which records are logged: all of ours, and a library's from WARNING on, whatever level it set on its logger.

    A library's line comes at most once in ``_PAUSE_SECONDS``, and then says how often it came again: while a broker is away
    aiokafka writes some twenty a second.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int, object], tuple[float, int]] = {}

    def __call__(self, record: logging.LogRecord) -> bool:
        if _own(record.name):
            return True
        if record.levelno < logging.WARNING:
            return False
        key = record.name, record.levelno, record.msg if isinstance(record.msg, str) else type(record.msg)
        since, repeats = self._seen.get(key, (record.created - _PAUSE_SECONDS, 0))
        if 0 <= record.created - since < _PAUSE_SECONDS:
            self._seen[key] = since, repeats + 1
            return False
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[key] = record.created, 0
        record.repeats = repeats
        return True


def configure(settings: Settings, name: str, stream: TextIO | None = None, *, package: str = OWN) -> logging.Handler:
    """Send this process's logs to ``stream`` (default stderr) as JSON; ``name`` is the process in each line.

    ``package`` is the service's package. Its loggers get the level of the settings, like those of ``kaption``.

    Replaces every handler of the root logger. Returns the new handler, so that a test can remove it.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(name))
    handler.addFilter(_Allowed())
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    for own in (OWN, package):
        logging.getLogger(own).setLevel(settings.log_level)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    for place in settings.in_clear():
        logging.getLogger(OWN).warning("plaintext_transport", extra={"to": place})
    return handler


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log an uncaught exception in the same form. Python's own hook would print its message."""
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("kaption").critical("process_crashed", exc_info=(kind, error, trace))
