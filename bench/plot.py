"""Draws the latency of words by the number of live streams, for Kaption and its peers, from bench/results.

    .venv/bin/python -m bench.plot [--picture bench/results/latency.svg]

Both axes are logarithmic: peers are two to ten times as late with four streams as with one. Solid lines are the 95th percentile
until a word is shown, dashed ones until it is committed (see bench/README.md).
"""

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path

from bench.figures import FOLDER, Result, read

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 60, 190, 40, 50
STREAMS, SECONDS = (1, 2, 4, 8, 16, 32), (0.5, 1, 2, 5, 10, 20, 50, 100)
#: The prefix of results' names, before a dash and the number of streams, with its colour.
SYSTEMS = {
    "live": ("Kaption", "#4c78a8"),
    "whisperlive": ("WhisperLive", "#f58518"),
    "whisperlivekit": ("WhisperLiveKit", "#e45756"),
}
LINES = {"shown p95": "", "committed p95": ' stroke-dasharray="5 4"'}


def series(found: Mapping[str, Result], system: str, figure: str) -> list[tuple[int, float]]:
    """Return the points of ``system``: numbers of streams, and seconds."""
    names = {name: re.fullmatch(rf"{system}-(\d+)", name) for name in found}
    points = [(int(match[1]), float(found[name].figures[figure])) for name, match in names.items() if match]
    return sorted(points)


def _x(streams: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(streams) / math.log(STREAMS[-1])


def _y(seconds: float) -> float:
    low, high = math.log(SECONDS[0]), math.log(SECONDS[-1] * 1.2)
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log(seconds) - low) / (high - low)


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{words}</text>'


def draw(found: Mapping[str, Result]) -> str:
    """Draw the picture as SVG, without systems that have no results."""
    lines = [
        _text(
            8, 20, "Seconds until a word is shown (solid) and committed (dashed), 95th percentile; two cores, tiny.en"
        )
    ]
    for seconds in SECONDS:
        lines.append(f'<path d="M{LEFT} {_y(seconds):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        lines.append(_text(LEFT - 8, _y(seconds) + 4, f"{seconds:g} s", ' text-anchor="end"'))
    lines += [_text(_x(n), HEIGHT - BOTTOM + 18, str(n), ' text-anchor="middle"') for n in STREAMS]
    lines.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "live streams", ' text-anchor="middle"'))
    for system, (title, colour) in SYSTEMS.items():
        for figure, dashes in LINES.items():
            points = [(_x(n), _y(seconds)) for n, seconds in series(found, system, figure)]
            if not points:
                continue
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            lines.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
            lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
            if not dashes:
                lines.append(_text(points[-1][0] + 8, points[-1][1] + 4, title, f' fill="{colour}"'))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *lines, "</svg>", ""])


def main() -> None:
    """Draw the existing results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, default=FOLDER / "latency.svg")
    picture = parser.parse_args().picture
    picture.write_text(draw({path.stem: result for path in FOLDER.glob("*.json") if (result := read(path))}))
    print(f"written to {picture}")


if __name__ == "__main__":
    main()
