"""Draws the pictures of the README: the path of audio, and a recorded session of ``kaption demo``, each light and dark.

``python -m tools.pictures`` draws all from this file and ``docs/pictures/demo.txt``; ``python -m tools.pictures record`` first
runs the command and writes its output to that file.
"""

import subprocess
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final as Const

PICTURES: Const = Path(__file__).parent.parent / "docs" / "pictures"
RECORDING: Const = PICTURES / "demo.txt"
_SANS: Const = "system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif"
_MONO: Const = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

#: Lines of the recording that the picture shows: _FIRST of this stream at its start, _LAST of all at its end, each up to _COLUMNS wide.
_STREAM: Const = "harbour "
_FIRST: Const = 10
_LAST: Const = 8
_COLUMNS: Const = 118
_LINE: Const = 20
_COLUMN: Const = 7.85


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one theme. Each of ``topic``, ``process`` and ``dead`` is a fill and a stroke."""

    ink: str
    faint: str
    terminal: str
    frame: str
    accent: str
    topic: tuple[str, str]
    process: tuple[str, str]
    dead: tuple[str, str]


PALETTES: Const = {
    "light": Palette(
        ink="#1f2328",
        faint="#59636e",
        terminal="#f6f8fa",
        frame="#d1d9e0",
        accent="#0a5fb4",
        topic=("#e8f1fd", "#4a7fc1"),
        process=("#fff3dc", "#b97a10"),
        dead=("#fdeaea", "#c0504d"),
    ),
    "dark": Palette(
        ink="#e6edf3",
        faint="#9da7b3",
        terminal="#151b23",
        frame="#3d444d",
        accent="#79b8ff",
        topic=("#12263f", "#5a9be0"),
        process=("#33270e", "#d9a441"),
        dead=("#3a1717", "#e07a76"),
    ),
}


def _text(
    x: float, y: float, text: str, colour: str, *, size: float = 13, mono: bool = False, anchor: str = "middle"
) -> str:
    family = _MONO if mono else _SANS
    return f'<text x="{x}" y="{y}" fill="{colour}" font-family="{family}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'


@dataclass(frozen=True, slots=True)
class _Box:
    """A box with its first line in bold type or, for a topic, in the type of code; further lines are smaller."""

    x: int
    y: int
    width: int
    height: int
    kind: str
    lines: tuple[str, ...]

    def draw(self, palette: Palette) -> str:
        fill, stroke = {"topic": palette.topic, "process": palette.process, "dead": palette.dead}[self.kind]
        shape = f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="8" fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'
        middle = self.x + self.width / 2
        top = self.y + self.height / 2 - 9 * (len(self.lines) - 1) + 4.5
        head = _text(
            middle,
            top,
            self.lines[0],
            palette.ink,
            size=12.5 if self.kind != "process" else 14,
            mono=self.kind != "process",
        )
        rest = [
            _text(middle, top + 18 * (n + 1), line, palette.faint, size=12.5) for n, line in enumerate(self.lines[1:])
        ]
        return "\n".join((shape, head, *rest))


_BOXES: Const = (
    _Box(10, 50, 165, 64, "topic", ("media.events.v1", "frames of live runs")),
    _Box(10, 176, 165, 64, "topic", ("media.objects.v1", "files in the store")),
    _Box(213, 44, 165, 76, "process", ("live agent", "validate, redact,", "chunk")),
    _Box(213, 170, 165, 76, "process", ("file agent", "validate, redact,", "normalise, chunk")),
    _Box(416, 50, 150, 64, "topic", ("audio.live.v1", "PCM of each frame")),
    _Box(416, 176, 150, 64, "topic", ("audio.batch.v1", "references to audio")),
    _Box(
        604,
        44,
        170,
        202,
        "process",
        ("pool of workers", "lanes", "sessions", "planner", "one batch, Whisper", "redact text"),
    ),
    _Box(812, 44, 178, 58, "topic", ("transcripts.partial.v1", "within 1 to 2 s")),
    _Box(812, 116, 178, 58, "topic", ("transcripts.final.v1", "exactly once")),
    _Box(812, 188, 178, 58, "topic", ("transcripts.state.v1", "snapshots, for a restart")),
    _Box(416, 300, 150, 58, "dead", ("media.dlq.v1", "refused, with reason")),
)
_ARROWS: Const = (
    "M175 82H206",
    "M175 208H206",
    "M378 82H409",
    "M378 208H409",
    "M566 82H597",
    "M566 208H597",
    "M774 73H805",
    "M774 145H805",
    "M781 217H805",
    "M378 234H392M378 108H392V329H409",
    "M689 246V329H573",
)
_HEADS: Const = ((92, "publishers write"), (295, "agents"), (491, "audio topics"), (689, "pool"), (901, "transcripts"))


def path(palette: Palette) -> str:
    """The path of audio from publishers to readers."""
    arrows = "\n".join(
        f'<path d="{d}" fill="none" stroke="{palette.faint}" stroke-width="1.6" marker-end="url(#a)"'
        + (' marker-start="url(#b)"' if d.startswith("M781") else "")
        + "/>"
        for d in _ARROWS
    )
    heads = "\n".join(_text(x, 24, text, palette.faint, size=13) for x, text in _HEADS)
    note = _text(
        491,
        384,
        "Kafka's log is the only durable state: a worker that dies is replaced by a replay of the log.",
        palette.faint,
        size=13,
    )
    marker = '<marker id="{}" viewBox="0 0 8 8" refX="{}" refY="4" markerWidth="8" markerHeight="8" orient="auto" markerUnits="userSpaceOnUse"><path d="{}" fill="{}"/></marker>'
    ends = marker.format("a", 1, "M0 0L8 4L0 8z", palette.faint) + marker.format("b", 7, "M8 0L0 4L8 8z", palette.faint)
    boxes = "\n".join(box.draw(palette) for box in _BOXES)
    return _svg(1000, 396, f"<defs>{ends}</defs>\n{arrows}\n{boxes}\n{heads}\n{note}")


def terminal(recording: list[str], palette: Palette) -> str:
    """Lines of the recording in a terminal's frame."""
    first = [line for line in recording if line.startswith(_STREAM)][:_FIRST]
    last = [line for line in recording if line][-_LAST:]
    omitted = f"... {len(recording) - _FIRST - _LAST} more lines"
    shown = ["$ kaption demo --exit", *first, omitted, *last]
    rows = []
    for number, line in enumerate(shown):
        colour = palette.accent if not number else palette.faint if " ~ " in line or line == omitted else palette.ink
        clipped = line if len(line) <= _COLUMNS else line[: _COLUMNS - 1] + "…"
        rows.append(
            f'<text x="16" y="{52 + _LINE * number}" fill="{colour}" xml:space="preserve">{escape(clipped)}</text>'
        )
    width, height = round(32 + _COLUMN * _COLUMNS), 44 + _LINE * len(shown)
    dots = "".join(f'<circle cx="{18 + 18 * n}" cy="16" r="5" fill="{palette.frame}"/>' for n in range(3))
    frame = f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="{palette.terminal}" stroke="{palette.frame}"/>'
    return _svg(width, height, "\n".join((f"<style>text{{font:13px {_MONO}}}</style>", frame, dots, *rows)))


def _svg(width: int, height: int, content: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n{content}\n</svg>\n'


def pictures() -> dict[str, str]:
    """Each picture's text by its file name."""
    recording = RECORDING.read_text().splitlines()
    drawn = {}
    for theme, palette in PALETTES.items():
        drawn[f"path-{theme}.svg"] = path(palette)
        drawn[f"demo-{theme}.svg"] = terminal(recording, palette)
    return drawn


def record() -> None:
    """Run ``kaption demo --exit`` and keep what it prints. Raises ``subprocess.CalledProcessError`` when it fails."""
    command = [str(Path(sys.executable).parent / "kaption"), "demo", "--exit"]
    RECORDING.write_text(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> None:
    """Draw; first record where ``record`` is the argument."""
    if sys.argv[1:] == ["record"]:
        record()
    for name, text in pictures().items():
        (PICTURES / name).write_text(text)


if __name__ == "__main__":
    main()
