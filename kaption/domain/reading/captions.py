"""Formats finals as captions: SRT, WebVTT and plain text. Pure; a final's cues depend on that final alone.

The limits are those that broadcasters and streaming services publish for subtitles (EBU-TT-D, the BBC, Netflix): two lines
of 37 characters, breaks after punctuation and before conjunctions and prepositions, a cue shown for 0.83 to 7 s and at most
17 characters per second where time allows.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final as Const

from kaption_schemas.records import FinalTranscript

VTT_HEADER: Const = "WEBVTT\n\n"
#: Lines break before these words, so that they stay with what they introduce.
_INTRODUCERS: Const = frozenset({
    "and", "but", "or", "nor", "so", "yet", "because", "although", "while", "if", "when", "that", "which", "who",
    "whose", "where", "as", "than", "then", "about", "above", "across", "after", "against", "at", "before",
    "behind", "between", "by", "down", "during", "for", "from", "in", "into", "like", "near", "of", "off", "on",
    "onto", "over", "since", "through", "to", "toward", "under", "until", "up", "upon", "with", "within", "without",
})  # fmt: skip
_PUNCTUATION: Const = (".", ",", "?", "!", ";", ":", "…", "。", "，", "？", "！")
_SENTENCE: Const = (".", "?", "!", "…", "。", "？", "！")


@dataclass(frozen=True, slots=True)
class Layout:
    """Limits of one cue. ``columns`` is 32 for CEA-608; times in milliseconds, ``per_second`` in characters."""

    columns: int = 37
    lines: int = 2
    min_ms: int = 830
    max_ms: int = 7000
    per_second: float = 17.0


@dataclass(frozen=True, slots=True)
class Cue:
    """One caption. ``id`` is ``run/channel/segment.number``, the same each time the final is read.

    ``voice`` names the speaker: the channel, counted from 1, where each has its own transcript; otherwise None.
    """

    id: str
    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    voice: int | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    """A piece without a line break in it; ``text`` keeps the space before it."""

    text: str
    start_ms: int
    end_ms: int


DEFAULT_LAYOUT: Const = Layout()
#: With room in front for the speaker.
VOICES_LAYOUT: Const = Layout(columns=DEFAULT_LAYOUT.columns - len("1: "))


def cues(final: FinalTranscript, layout: Layout = DEFAULT_LAYOUT) -> tuple[Cue, ...]:
    """Return the cues of a final, in order, without overlap, within its range; none for a silent one."""
    groups = _group(_lines(_tokens(final, layout), layout), layout)
    starts = [group[0][0].start_ms for group in groups]
    ends = [*starts[1:], max(final.end_ms, *(group[-1][-1].end_ms for group in groups))] if groups else []
    return tuple(
        Cue(
            f"{final.run}/{final.channel}/{final.segment}.{number}",
            start,
            _end(start, group, limit, layout),
            tuple(_text(line) for line in group),
            voice(final),
        )
        for number, (start, limit, group) in enumerate(zip(starts, ends, groups, strict=True))
    )


def voice(final: FinalTranscript) -> int | None:
    """Return the speaker: the channel, counted from 1, where each has its own transcript; otherwise None."""
    return final.channel + 1 if final.channels > 1 else None


def srt(cue: Cue, number: int) -> str:
    """Format ``cue`` as an entry of an SRT file; ``number`` counts from 1 over the whole file."""
    times = f"{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}"
    return f"{number}\n{times}\n{_named(cue.voice)}" + "\n".join(cue.lines) + "\n\n"


def vtt(cue: Cue) -> str:
    """Format ``cue`` as a block of a WebVTT file, which begins with ``VTT_HEADER``."""
    lines = (line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in cue.lines)
    who = "" if cue.voice is None else f"<v Channel {cue.voice}>"
    return f"{cue.id}\n{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{who}" + "\n".join(lines) + "\n\n"


def txt(final: FinalTranscript) -> str:
    """Format a final as a line of plain text; empty for a silent one."""
    return f"{_named(voice(final))}{' '.join(final.text.split())}\n" if final.text.strip() else ""


def _named(voice: int | None) -> str:
    return "" if voice is None else f"{voice}: "


def _clock(ms: int, mark: str) -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{ms:03d}"


def _tokens(final: FinalTranscript, layout: Layout) -> list[_Token]:
    """Split the final's text into pieces with their words' times, or times by length if the words do not spell the text."""
    return [piece for token in _aligned(final) or _spread(final) for piece in _cut(token, layout.columns)]


def _aligned(final: FinalTranscript) -> list[_Token]:
    """Find the words in the text one after the other; empty if one is missing. No character of the text is lost."""
    out: list[_Token] = []
    at = 0
    for word in final.words:
        found = final.text.find(word.text, at)
        if found < 0 or not word.text:
            return []
        between = final.text[at:found]
        lead = between.split(maxsplit=1)[0] if between[:1].strip() else ""
        if lead and out:  # text that a mask left after it, such as a full stop
            out[-1] = replace(out[-1], text=out[-1].text + lead)
            between = between[len(lead) :]
        at = found + len(word.text)
        out.append(_Token(between + word.text, word.start_ms, word.end_ms))
    if out:
        out[-1] = replace(out[-1], text=out[-1].text + final.text[at:])
    return out


def _spread(final: FinalTranscript) -> list[_Token]:
    pieces = final.text.split()
    total = sum(map(len, pieces)) or 1
    start = final.speech_start_sample * 1000 // final.rate
    length = max(final.speech_end_sample * 1000 // final.rate - start, 0)
    out, seen = [], 0
    for piece in pieces:
        begin = start + length * seen // total
        seen += len(piece)
        out.append(_Token(f" {piece}", begin, start + length * seen // total))
    return out


def _cut(token: _Token, columns: int) -> list[_Token]:
    """Split a piece longer than a line into pieces that fit; only the first keeps the space."""
    text = token.text.strip()
    if len(text) <= columns:
        return [token]
    space = token.text[: len(token.text) - len(token.text.lstrip())]
    parts = [text[at : at + columns] for at in range(0, len(text), columns)]
    return [_Token((space if i == 0 else "") + part, token.start_ms, token.end_ms) for i, part in enumerate(parts)]


def _text(line: list[_Token]) -> str:
    return " ".join("".join(token.text for token in line).split())


def _lines(tokens: list[_Token], layout: Layout) -> list[list[_Token]]:
    """Split tokens into lines: each as full as possible, unless there is a better break after its first third."""
    out = []
    while tokens:
        fits = 1
        while fits < len(tokens) and len(_text(tokens[: fits + 1])) <= layout.columns:
            fits += 1
        count = fits if fits == len(tokens) else _best_break(tokens, fits, layout.columns)
        out.append(tokens[:count])
        tokens = tokens[count:]
    return out


def _best_break(tokens: list[_Token], fits: int, columns: int) -> int:
    def score(count: int) -> tuple[int, int]:
        last, following = tokens[count - 1].text, tokens[count].text
        if last.endswith(_PUNCTUATION):
            return (2, count)
        return (1 if following.strip().lower() in _INTRODUCERS else 0, count)

    enough = [n for n in range(1, fits + 1) if n == fits or len(_text(tokens[:n])) * 3 >= columns]
    return max(enough, key=score)


def _group(lines: list[list[_Token]], layout: Layout) -> list[list[list[_Token]]]:
    """Group lines into cues: a cue ends when it is full or long, at a sentence's end, or where speech pauses."""
    if not lines:
        return []
    out = [[lines[0]]]
    for before, line in pairwise(lines):
        cue = out[-1]
        full = len(cue) == layout.lines or line[-1].end_ms - cue[0][0].start_ms > layout.max_ms
        apart = before[-1].text.endswith(_SENTENCE) and line[0].start_ms - before[-1].end_ms > 500
        if full or apart or line[0].start_ms - before[-1].end_ms > 1500:
            out.append([line])
        else:
            cue.append(line)
    return out


def _end(start: int, group: list[list[_Token]], limit: int, layout: Layout) -> int:
    """Return a cue's end: with its last word, or later to leave time to read, but not beyond ``limit``, the next cue."""
    characters = sum(len(_text(line)) for line in group)
    readable = max(layout.min_ms, round(characters * 1000 / layout.per_second))
    spoken = group[-1][-1].end_ms - start
    return max(start + 1, min(start + min(max(spoken, readable), max(layout.max_ms, 1)), limit))
