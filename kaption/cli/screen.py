"""Draws captions on a terminal: finals scroll up, partials grow below them with their unstable end dimmed."""

from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kaption.domain.reading.reader import TrackKey, failed
from kaption_schemas.records import FinalTranscript, Gap, PartialTranscript, StreamCompleted, StreamProgress, Transcript

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")


def clock(ms: int) -> str:
    """Format ``ms`` from the run's start as ``M:SS.d``."""
    return f"{ms // 60_000}:{ms // 1000 % 60:02d}.{ms // 100 % 10}"


def line(record: Transcript) -> str:
    """Format a record as one plain line; empty for a silent final and for progress, since finals show it. Channels count
    from 1, and the line does not name channel 1. Control characters do not reach the terminal.
    """
    if isinstance(record, StreamProgress):
        return ""
    where = f"{record.stream}#{record.channel + 1}" if record.channel else record.stream
    if isinstance(record, PartialTranscript):
        return f"{where}  {clock(record.start_ms)}  ~ {printable(record.text)}"
    if isinstance(record, FinalTranscript):
        return f"{where}  {clock(record.start_ms)}  {printable(record.text)}" if record.text else ""
    if isinstance(record, Gap):
        return f"{where}  [gap of {record.samples} samples: {record.reason}]"
    if failed(record):
        return f"{where}  [{record.reason}: {record.reason.meaning}]"
    return f"{where}  [completed: {segments(record.segments)}, {clock(record.duration_ms)}, {record.reason}]"


def segments(count: int) -> str:
    """Format a number of segments in words."""
    return f"{count} segment" if count == 1 else f"{count} segments"


def printable(text: str) -> str:
    """Remove characters from ``text`` that a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


class Screen:
    """Draws records as they arrive; a context manager. ``status`` returns the last line, such as a demo's figures."""

    def __init__(self, console: Console, status: Callable[[], str] = lambda: "") -> None:
        self._console = console
        self._status = status
        self._open: dict[tuple[TrackKey, int], PartialTranscript] = {}
        self._files: dict[str, StreamProgress] = {}
        self._colours: dict[str, str] = {}
        # Drawn when a record arrives, never by a timer: an idle terminal costs nothing.
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> "Screen":
        """Take the terminal."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the terminal and remove what was not final."""
        self._open.clear()
        self._files.clear()
        self._live.update(Text(""), refresh=True)
        self._live.stop()

    def show(self, record: Transcript, note: str = "") -> None:
        """Draw ``record``, followed by ``note``, dimmed."""
        if isinstance(record, PartialTranscript):
            self._open[_track(record), record.segment] = record
        elif isinstance(record, StreamProgress):
            self._files[record.run] = record
        else:
            self._settle(_track(record), record)
            if text := line(record):
                said = Text(text, style="" if isinstance(record, FinalTranscript) else "dim")
                said.stylize(self._colour(record.stream), 0, len(record.stream))
                self._live.console.print(said.append(f"  {note}" if note else "", style="dim"))
        self.refresh()

    @property
    def growing(self) -> tuple[PartialTranscript, ...]:
        """Return the open partials, oldest first."""
        return tuple(self._open.values())

    def refresh(self) -> None:
        """Draw the open partials again."""
        rows = [self._row(record) for record in self.growing]
        rows += [self._file(record) for record in self._files.values()]
        if status := self._status():
            rows.append(Text(status, style="dim"))
        self._live.update(Group(*rows), refresh=True)

    def _settle(self, key: TrackKey, record: Transcript) -> None:
        """Remove the partials that ``record`` ends; the next segment's may be there already."""
        if isinstance(record, StreamCompleted):
            self._files.pop(record.run, None)
        last = record.segment if isinstance(record, FinalTranscript) else None
        if last is not None or isinstance(record, StreamCompleted):
            over = [one for one in self._open if one[0] == key and (last is None or one[1] <= last)]
            for one in over:
                del self._open[one]

    def _row(self, record: PartialTranscript) -> Text:
        out = Text(record.stream, style=self._colour(record.stream)).append(
            f"  {clock(record.start_ms)}  ", style="dim"
        )
        out.append(printable(record.text[: record.stable]), style="default")
        return out.append(printable(record.text[record.stable :]), style="dim")

    def _file(self, record: StreamProgress) -> Text:
        whole = f" of {clock(record.total_ms)}, {100 * record.done_ms // record.total_ms} %" if record.total_ms else ""
        out = Text(record.stream, style=self._colour(record.stream))
        return out.append(f"  {clock(record.done_ms)}{whole}", style="dim")

    def _colour(self, stream: str) -> str:
        return self._colours.setdefault(stream, _COLOURS[len(self._colours) % len(_COLOURS)])


def _track(record: PartialTranscript | FinalTranscript | Gap | StreamCompleted) -> TrackKey:
    return TrackKey(record.tenant, record.stream, record.run, record.channel)
