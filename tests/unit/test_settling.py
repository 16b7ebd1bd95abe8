"""Stable words before a gap in speech are not decoded again: the next partial begins there, and the final covers all of it."""

from dataclasses import replace
from itertools import repeat

from kaption.domain.decoding.port import Decoded, DecodedWord, Kind, Window
from kaption.domain.records import Output
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.settling import settle
from kaption_schemas.records import FinalTranscript, PartialTranscript
from tests.support.runs import babble, decode_all, records, session

RATE = 16000


def words(*ends: float) -> list[DecodedWord]:
    """Words of 0.4 s that end there."""
    return [DecodedWord(f" w{n}", end - 0.4, end, 0.9) for n, end in enumerate(ends)]


def test_the_widest_gap_among_stable_words_is_taken() -> None:
    said = [
        DecodedWord(" one", 0.0, 1.0, 0.9),
        DecodedWord(" two", 1.0, 2.0, 0.9),
        DecodedWord(" three", 2.3, 3.0, 0.9),
        DecodedWord(" four", 3.1, 4.0, 0.9),
        DecodedWord(" five", 4.0, 5.0, 0.9),
    ]
    assert settle(said, stable=5, length=5.0) == (2, 2.15)
    assert settle(said, stable=1, length=5.0) is None, "two is not stable, and too little audio lies before it"


def test_enough_audio_stays_on_either_side() -> None:
    assert settle(words(0.5, 1.0, 1.4), stable=3, length=6.0) is None
    assert settle(words(2.0, 4.0), stable=2, length=3.2) is None
    assert settle([], stable=0, length=9.0) is None


def test_a_long_partial_goes_on_behind_the_settled_words() -> None:
    pcm = babble([(9.0, True), (1.0, False)], RATE)
    run, out, longest = session(config=SessionConfig(prompt_seconds=0)), list[Output](), 0
    for record in records(pcm, repeat(1600), RATE):
        out += run.feed(record)
        for want in run.wants(record.timestamp_ms):
            window = run.begin(want.window_id)
            if want.kind is Kind.PARTIAL:
                longest = max(longest, len(window.audio))
            out += run.apply(want.window_id, numbered(window, run.next_sample), record.timestamp_ms)
    out += decode_all(run, 0, lambda window: numbered(window, run.next_sample))
    partials = [o for o in out if isinstance(o, PartialTranscript)]
    assert longest < 6.5 * RATE, "a partial of nine seconds was decoded whole"
    texts = [p.text.split() for p in partials]
    assert max(map(len, texts)) >= 16
    for text in texts:
        assert text == [f"w{n}" for n in range(len(text))]
    (final,) = [o for o in out if isinstance(o, FinalTranscript) if not o.silent]
    assert len(final.text.split()) >= 17, "the final is a decode of the whole segment"


def numbered(window: Window, fed: int) -> Decoded:
    """Words by where the window lies: it ends where feeding stands, or with the segment, which begins at 0."""
    start = fed - len(window.audio) if window.kind is Kind.PARTIAL else 0
    first = round(start / 8000)
    timed = tuple(
        DecodedWord(
            f" w{first + n}", max(0.0, (first + n) / 2 - start / RATE), (first + n) / 2 + 0.4 - start / RATE, 0.9
        )
        for n in range(round(len(window.audio) / 8000))
    )
    text = " ".join(word.text.strip() for word in timed)
    return replace(Decoded(text, "en", -0.2, 0.01, 1.1), words=timed if window.options.word_times else ())
