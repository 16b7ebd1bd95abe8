"""Renders the table of goals: the measurement, the figure reached, and the peers' figures. It runs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.figures import Result

#: Cores that other processes may use during a measurement without a note.
BESIDE = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """A goal: ``reached`` and each of ``peers`` name a result and a template with its figures' names in braces."""

    goal: str
    what: str
    aim: str
    reached: tuple[str, str]
    peers: tuple[tuple[str, str, str], ...] = ()


_SHOWN = "{shown p50:.2f} / {shown p95:.2f}"
_COMMITTED = "{committed p50:.2f} / {committed p95:.2f}"
_OF_ALL = "{shown of all:.1%}, {committed of all:.1%}"
_WL, _WLK = "WhisperLive", "WhisperLiveKit"


def _live(goal: str, streams: int, what: str, aim: str, template: str, peers_at: int) -> Row:
    """Make a row of live streams, with the same figure of both peers at ``peers_at`` streams."""
    beside = "" if peers_at == streams else f" at {peers_at}"
    peers = tuple((f"{name}{beside}", f"{name.lower()}-{peers_at}", template) for name in (_WL, _WLK))
    return Row(goal, f"{streams} stream{'s' * (streams > 1)}: {what}", aim, (f"live-{streams}", template), peers)


ROWS: tuple[Row, ...] = (
    _live("P2", 1, "shown p50 / p95, s", "0.35 / 0.8", _SHOWN, 1),
    _live("P2", 1, "committed p50 / p95, s", "1.2 / 2.5", _COMMITTED, 1),
    Row("P2", "1 stream: final after a sentence's end, p95, s", "0.9", ("live-1", "{finals p95:.2f}")),
    _live("P2", 16, "shown p50 / p95, s", "0.5 / 1.0", _SHOWN, 4),
    _live("P2", 16, "committed p50 / p95, s", "1.5 / 3.0", _COMMITTED, 4),
    _live("P1", 32, "shown, committed p95, s", "2, 5", "{shown p95:.2f}, {committed p95:.2f}", 4),
    Row("P1", "32 streams: WER, offline", "1 point", ("live-32", "{wer:.2%}, {wer offline:.2%}")),
    Row(
        "P1",
        "11 streams with base: shown, committed p95, s",
        "2, 5",
        ("live-base-11", "{shown p95:.2f}, {committed p95:.2f}"),
    ),
    Row("P1", "11 streams with base: WER, offline", "1 point", ("live-base-11", "{wer:.2%}, {wer offline:.2%}")),
    Row(
        "P1",
        "the same by beam and prompted: shown, committed p95, s",
        "2, 5",
        ("live-base-11-beam", "{shown p95:.2f}, {committed p95:.2f}"),
    ),
    Row(
        "P1",
        "the same by beam and prompted: WER, offline",
        "1 point",
        ("live-base-11-beam", "{wer:.2%}, {wer offline:.2%}"),
    ),
    _live("P2", 1, "words shown, committed, of all", "", _OF_ALL, 1),
    _live("P1", 32, "words shown, committed, of all", "", _OF_ALL, 4),
    _live("4", 1, "shown words taken back or changed, a word", "", "{revisions a word:.2f}", 1),
    _live("4", 4, "shown words taken back or changed, a word", "", "{revisions a word:.2f}", 4),
    _live("4", 1, "flicker: records that take back or change a shown word", "", "{flicker:.0%}", 1),
    _live("4", 4, "flicker: records that take back or change a shown word", "", "{flicker:.0%}", 4),
    Row("4", "1 stream: stable words that finals change", "2 %", ("live-1", "{stable changed:.1%}")),
    Row("4", "16 streams: stable words that finals change", "2 %", ("live-16", "{stable changed:.1%}")),
    Row(
        "P3",
        "files, times real time (WER)",
        "3 times the README's, 1.5 times the best layout, no more words wrong",
        ("file", "{kaption:.1f} ({kaption, wer:.2%})"),
        (
            (
                "faster-whisper batched, its README",
                "file",
                "{batched, as its README:.1f} ({batched, as its README, wer:.2%})",
            ),
            ("two workers", "file", "{batched, two workers:.1f} ({batched, two workers, wer:.2%})"),
            ("sequential", "file", "{sequential:.1f} ({sequential, wer:.2%})"),
        ),
    ),
    Row(
        "P3",
        "files with base, times real time (WER)",
        "",
        ("file-base", "{kaption:.1f} ({kaption, wer:.2%})"),
        (
            (
                "faster-whisper batched, its README",
                "file-base",
                "{batched, as its README:.1f} ({batched, as its README, wer:.2%})",
            ),
        ),
    ),
    Row("P4", "front door: added at 320 frames/s, median, ms", "15", ("hop", "{added ms:.0f}")),
    Row("P4", "front door: frames a second on one core", "2000", ("hop", "{frames a second:.0f}")),
    Row(
        "P5",
        "two executors, two processes on two cores against one on one, 16 streams a core",
        "1.8",
        (
            "scale",
            "{two executors on two cores, ratio:.2f}, {two processes, an executor and a core each, ratio:.2f}",
        ),
    ),
    Row(
        "P5",
        "64 quiet rooms: windows; of a core",
        "0; 25 %",
        ("scale", "{brown noise at -55 dBFS, windows:.0f}; {brown noise at -55 dBFS, cores:.0%}"),
    ),
    Row(
        "P5",
        "64 rooms with fans: windows; of a core",
        "0; 25 %",
        ("scale", "{pink noise at -40 dBFS, windows:.0f}; {pink noise at -40 dBFS, cores:.0%}"),
    ),
    Row("P6", "memory a further stream, MiB, 4 to 16", "2", ("soak", "{MiB a further stream:.2f}")),
    Row("P6", "the same, 16 to 32", "2", ("soak", "{MiB a further stream, all to twice as many:.2f}")),
    Row("P6", "growth in the second half", "3 %", ("soak", "{growth in the second half:+.1%}")),
    Row("P6", "first caption after SIGTERM, s", "5", ("soak", "{first caption after SIGTERM:.1f}")),
    Row("P6", "first caption after SIGKILL, s", "15", ("soak", "{first caption after SIGKILL:.1f}")),
    Row("P7", "runs that lost something", "0", ("overload", "{runs that lost something:.0f}")),
    Row(
        "P7",
        "partials, finals in time again after, s",
        "60",
        ("overload", "{partials back:.0f}, {finals back:.0f}"),
    ),
    Row("P7", "last final of the runs that ended, s", "", ("overload", "{last final of ended runs:.0f}")),
)


@dataclass(frozen=True, slots=True)
class _Spread:
    """The median of several runs, followed by the least and the most."""

    median: float
    least: float
    most: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.least:{spec}} to {self.most:{spec}})"


def written(result: Result | None, template: str) -> str:
    """Write a result's figures, with their spread if there are several runs; a dash without a result or if it lacks a figure."""
    if result is None:
        return "-"
    figures: dict[str, object] = dict(result.figures)
    for name, value in result.figures.items():
        least, most = result.figures.get(f"{name}, least"), result.figures.get(f"{name}, most")
        if isinstance(value, float) and isinstance(least, float) and isinstance(most, float):
            figures[name] = _Spread(value, least, most)
    try:
        return template.format(**figures)
    except KeyError:
        return "-"


def render(found: Mapping[str, Result]) -> str:
    """Render the table, and below it the origin of each figure."""
    lines = ["| goal | what | aim | reached | peers |", "| --- | --- | --- | --- | --- |"]
    for row in ROWS:
        reached = written(found.get(row.reached[0]), row.reached[1])
        peers = "; ".join(f"{name} {written(found.get(of), template)}" for name, of, template in row.peers)
        lines.append(f"| {row.goal} | {row.what} | {row.aim} | {reached} | {peers} |")
    lines.append("")
    for name, result in sorted(found.items()):
        setting = f" ({result.figures['setting']})" if "setting" in result.figures else ""
        others = result.figures.get("cores of others", 0.0)
        beside = f"; others used {others:.2f} cores" if isinstance(others, float) and others > BESIDE else ""
        lines.append(f"- {name}: {result.date}, {result.commit}, {result.machine}: `{result.command}`{setting}{beside}")
    return "\n".join(lines)
