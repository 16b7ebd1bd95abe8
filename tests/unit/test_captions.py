"""Cues: line lengths, breaks, times, ids, and the three formats byte by byte."""

import itertools

import pytest

from kaption.domain.reading.captions import VOICES_LAYOUT, VTT_HEADER, Cue, Layout, cues, srt, txt, vtt
from kaption.domain.reading.voices import TimeOrder
from kaption_schemas.records import FinalTranscript, Word
from tests.support.transcripts import RUN, final

LONG = (
    "Good morning, and welcome to the harbour. My name is Martin, and I look after the boats here. "
    "We have twenty four boats in the water, and three of them are ready to leave."
)


def spoken(text: str, word_ms: int = 300, segment: int = 0, **fields: object) -> FinalTranscript:
    words = tuple(
        Word(text=word, start_ms=i * word_ms, end_ms=(i + 1) * word_ms - 20, probability=0.9)
        for i, word in enumerate(text.split())
    )
    return final(segment, text, words, end_ms=max(4000, len(words) * word_ms + 500), **fields)


def test_every_word_is_shown_once_in_order_and_every_line_fits() -> None:
    made = cues(spoken(LONG))
    assert " ".join(line for cue in made for line in cue.lines) == LONG
    assert all(len(line) <= 37 for cue in made for line in cue.lines)
    assert all(1 <= len(cue.lines) <= 2 for cue in made)


def test_cues_neither_overlap_nor_leave_the_segment_and_are_readable() -> None:
    said = spoken(LONG, word_ms=400)
    made = cues(said)
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(made))
    assert made[-1].end_ms <= said.end_ms
    assert all(cue.end_ms - cue.start_ms <= 7000 for cue in made)
    assert all(cue.end_ms - cue.start_ms >= 830 for cue in made)


def test_a_line_ends_after_punctuation_or_before_a_conjunction() -> None:
    assert cues(spoken(LONG))[0].lines == ("Good morning,", "and welcome to the harbour.")
    lines = cues(spoken("the wind was very strong this week and nobody left the harbour"))[0].lines
    assert lines == ("the wind was very strong this week", "and nobody left the harbour")


def test_a_pause_ends_a_cue() -> None:
    words = (
        Word(text="Wait.", start_ms=0, end_ms=400, probability=1),
        Word(text="Go.", start_ms=3000, end_ms=3300, probability=1),
    )
    layout = Layout(columns=5)
    made = cues(final(0, "Wait. Go.", words), layout)
    assert [(cue.start_ms, cue.lines) for cue in made] == [(0, ("Wait.",)), (3000, ("Go.",))]


def test_ids_name_run_channel_segment_and_number() -> None:
    made = cues(spoken(LONG, segment=7, channel=1))
    assert [cue.id for cue in made] == [f"{RUN}/1/7.{number}" for number in range(len(made))]
    assert cues(spoken(LONG, segment=7, channel=1)) == made


def test_a_silent_final_has_no_cue() -> None:
    assert cues(final(0, "")) == ()
    assert txt(final(0, "")) == ""


def test_a_text_that_its_words_do_not_spell_gets_times_by_length() -> None:
    words = (Word(text="other", start_ms=0, end_ms=10, probability=1),)
    (cue,) = cues(final(0, "aaaa bbbb", words))
    assert (cue.start_ms, cue.lines) == (0, ("aaaa bbbb",))


def test_what_stands_behind_a_mask_is_kept() -> None:
    words = (
        Word(text="Call", start_ms=0, end_ms=300, probability=1),
        Word(text="[PHONE_NUMBER]", start_ms=300, end_ms=900, probability=1),
        Word(text="now", start_ms=900, end_ms=1200, probability=1),
    )
    (cue,) = cues(final(0, "Call [PHONE_NUMBER], now!", words))
    assert " ".join(cue.lines) == "Call [PHONE_NUMBER], now!"


@pytest.mark.parametrize("length", [38, 80, 200])
def test_a_word_longer_than_a_line_is_cut(length: int) -> None:
    made = cues(spoken("a" * length))
    assert all(len(line) <= 37 for cue in made for line in cue.lines)
    assert "".join(line for cue in made for line in cue.lines) == "a" * length


def split(segment: int, channel: int, text: str, start_ms: int = 0, end_ms: int = 4000) -> FinalTranscript:
    words = (Word(text=text, start_ms=start_ms, end_ms=start_ms + 400, probability=1),)
    return final(segment, text, words, channel=channel, channels=2, start_ms=start_ms, end_ms=end_ms)


def test_channels_that_are_decoded_apart_come_in_the_order_of_their_times() -> None:
    order = TimeOrder[str]()
    assert order.push(split(0, 0, "a"), [(0, "a")]) == []  # the other channel may have said something before
    assert order.push(split(1, 0, "c", 4000, 9000), [(4000, "c"), (6000, "e")]) == []
    assert order.push(split(0, 1, "b", 1000, 5000), [(1000, "b")]) == ["a", "b", "c"]
    assert order.push(split(1, 1, "d", 5000, 5500), [(5000, "d")]) == ["d"]
    assert order.flush() == ["e"]
    assert order.flush() == []


def test_a_run_of_one_transcript_is_never_held() -> None:
    order = TimeOrder[str]()
    assert order.push(final(0, "a"), [(0, "a")]) == ["a"]
    assert order.push(final(1, ""), []) == []
    assert order.push(final(2, "b"), [(8000, "b")]) == ["b"]


def test_who_speaks_is_said_where_channels_have_transcripts_of_their_own() -> None:
    said = split(0, 1, "Aye.")
    (cue,) = cues(said)
    assert vtt(cue).splitlines()[2] == "<v Channel 2>Aye."
    assert srt(cue, 1).splitlines()[2] == "2: Aye."
    assert txt(said) == "2: Aye.\n"
    long = cues(spoken(LONG, channels=2), VOICES_LAYOUT)
    assert all(len(text) <= 37 for each in long for text in srt(each, 1).splitlines()[2:])


def test_the_formats() -> None:
    cue = Cue("r/0/3.0", 3_723_004, 3_725_010, ("Tom & Jerry <3", "--> here"))
    assert srt(cue, 4) == "4\n01:02:03,004 --> 01:02:05,010\nTom & Jerry <3\n--> here\n\n"
    assert VTT_HEADER + vtt(cue) == (
        "WEBVTT\n\nr/0/3.0\n01:02:03.004 --> 01:02:05.010\nTom &amp; Jerry &lt;3\n--&gt; here\n\n"
    )
    assert txt(final(0, "So  it\nis.")) == "So it is.\n"
