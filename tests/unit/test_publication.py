"""What a run publishes of sensitive numbers that a pause parts, through the session and the real recognisers."""

import json
from itertools import repeat

import pytest

from kaption.adapters.presidio import PresidioRedactor
from kaption.domain.decoding.port import Decoded, Kind, Window
from kaption.domain.records import Latency
from kaption.domain.run.config import Ports, SessionConfig
from kaption.domain.run.session import Session
from kaption.testing.voices import MODEL, EnergyDetector
from kaption_schemas.records import FinalTranscript, PartialTranscript
from tests.support.runs import KEY, babble, decode_all, play, records
from tests.support.saying import say

RATE = 16000
POLICY = ("CREDIT_CARD", "PHONE_NUMBER")
EVERY = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "PHONE_NUMBER", "US_SSN")
REDACTOR = PresidioRedactor()


def session(config: SessionConfig) -> Session:
    return Session(KEY, Latency.LIVE, config, Ports(EnergyDetector, REDACTOR, MODEL))


def heard(text: str) -> Decoded:
    return Decoded(text, "en", -0.1, 0.0, 1.0)


def said(texts: list[str], pause: float, policy: tuple[str, ...] = POLICY, quiet: float = 1.0) -> list[FinalTranscript]:
    """Return the finals of a run with ``texts`` for its stretches of speech, with ``pause`` between."""
    out = say(texts, [pause] * len(texts), REDACTOR, policy, quiet)
    return [o for o in out if isinstance(o, FinalTranscript) and not o.silent]


def test_a_card_across_a_pause_is_one_card() -> None:
    finals = said(["My card is 4111 1111", "1111 1111 and that is all."], 1.0)
    assert [f.text for f in finals] == ["My card is [CREDIT_CARD]", "and that is all."]
    assert not any(c.isdigit() for f in finals for w in f.words for c in w.text)


def test_the_beginning_of_a_card_that_could_be_a_phone_number_waits_too() -> None:
    finals = said(["It is 5151 9456 94", "51 7550 thank you."], 1.0)
    assert [f.text for f in finals] == ["It is [CREDIT_CARD]", "thank you."]


def test_past_the_limit_neither_half_is_shown() -> None:
    finals = said(["My card is 4111 1111", "1111 1111 and that is all."], 6.0)
    assert [f.text for f in finals] == ["My card is [PHONE_NUMBER]", "[CREDIT_CARD] and that is all."]
    finals = said(["My card is 4111 1111", "1111 1111 and that is all."], 6.0, ("CREDIT_CARD",))
    assert [f.text for f in finals] == ["My card is [REDACTED]", "[CREDIT_CARD] and that is all."]


@pytest.mark.parametrize("pause", [0.7, 1.0, 6.0])
@pytest.mark.parametrize(
    "texts",
    [
        ["card 41", "11", "11", "11", "1111", "1111 okay"],
        ["my card is 411", "1 1111 1111 1111 okay"],
        ["my card is 4111", "1111 1111 1111 okay"],
        ["my card is 4111 1111", "um 1111 1111 okay"],
        ["my card is 4111 1111", "uh", "1111 1111 okay"],
        ["my card 4111", "11", "11", "1111", "1111 okay"],
        ["card 411", "111", "111", "111", "1111 okay thanks"],
        ["card 4", "111", "1 1 1 1", "11 11", "11", "11 okay"],
        ["my card is forty one", "eleven", "eleven eleven", "double one triple one", "one one one one please"],
        ["call me on 202", "555 0123 okay"],
        ["call me on 202 555", "0123 okay"],
        ["it was 9", "8 7 6 5", "4 1 8 2 3 okay"],
        ["my iban is DE", "89 3704 0044 0532 0130 00 okay"],
        ["my iban is DE89", "3704 0044 0532 0130 00 okay"],
        ["iban DE89 370", "400", "440", "532", "0130 00 okay"],
        ["my social security number is", "219099990 okay"],
        ["my social security number is 21", "9 09 9990 okay"],
    ],
)
def test_what_pauses_part_is_one_number(texts: list[str], pause: float) -> None:
    """At most four digits are out before anybody can tell, however long the pauses; no partial has any."""
    out = say(texts, [pause] * len(texts), REDACTOR, EVERY, 1.0)
    finals = [o for o in out if isinstance(o, FinalTranscript)]
    for clear in (" ".join(f.text for f in finals), " ".join(w.text for f in finals for w in f.words)):
        assert sum(map(str.isdigit, clear)) <= 4, clear
        assert not {"double", "triple", "one"} & set(clear.replace("forty one", "").split()), clear
    assert not any(c.isdigit() for o in out if isinstance(o, PartialTranscript) for c in o.text)


@pytest.mark.parametrize("pause", [1.0, 6.0])
@pytest.mark.parametrize(
    "texts",
    [
        ["write to john.doe@", "gmail.com okay"],
        ["write to john.smith", "@gmail.com please"],
        ["write to john.smith@gmail", ".com please"],
        ["my address is john", ".smith@gmail.com"],
        ["john dot smith at", "gmail dot com please"],
    ],
)
def test_what_pauses_part_is_one_address(texts: list[str], pause: float) -> None:
    out = say(texts, [pause] * len(texts), REDACTOR, EVERY, 1.0)
    finals = [o for o in out if isinstance(o, FinalTranscript)]
    assert "gmail" not in " ".join(o.text for o in out if isinstance(o, FinalTranscript | PartialTranscript))
    assert "gmail" not in " ".join(w.text for f in finals for w in f.words)


@pytest.mark.parametrize(
    "texts",
    [
        ["My card is 5105", "1051 0510 5100 and the date is next year"],
        ["call me on 202 555", "0123 in the evening if you like to do so"],
        ["write to john.doe@", "gmail.com if that is fine with you and your boss"],
        ["DE89 3704", "0044 0532 0130 00 is the account of my brother in law"],
    ],
)
def test_partials_show_nothing_of_what_began_before_a_pause(texts: list[str]) -> None:
    out = say(texts, [1.0, 1.0], REDACTOR, EVERY, 1.0)
    behind = " ".join(o.text for o in out if isinstance(o, PartialTranscript) and o.segment == 1)
    assert texts[1].split()[-4] in behind, "the rest is shown"
    assert not any(char.isdigit() for char in behind)
    assert "gmail" not in behind


@pytest.mark.parametrize(
    ("text", "some"), [("1111 1111 of them came here today", False), ("many of them came here", True)]
)
def test_a_partial_waits_for_the_segment_before_it_where_it_may_go_on_with_that(text: str, *, some: bool) -> None:
    """Until that one is decoded, the text is unknown."""
    run = session(SessionConfig(redaction=EVERY))
    stream = records(babble([(0.7, False), (2.4, True), (1.0, False), (2.4, True)], RATE), repeat(RATE // 5), RATE)
    texts = []
    for record in stream[:-1]:
        run.feed(record)
        for wanted in run.wants(record.timestamp_ms):
            if wanted.kind is Kind.PARTIAL:
                spoken = heard(text if run.tracks[0].segments else "we thought that")
                out = run.apply(run.begin(wanted.window_id).id, spoken, record.timestamp_ms)
                texts += [o.text for o in out if isinstance(o, PartialTranscript) and o.segment == 1]
    assert run.tracks[0].segments[0].decoded is None
    assert bool(texts) is some


@pytest.mark.parametrize("quiet", [0.0, 1.0, 6.0])
@pytest.mark.parametrize(
    "text",
    [
        "The bridge was opened in 1984.",
        "The bridge was opened in nineteen eighty four.",
        "We meet in room 4071.",
        "We sold 12,500.",
        "The zip code is 90210.",
        "The zip code is 0 0 4 7 1.",
        "On the 3rd of March 2019.",
        "It costs $1,250,000.",
        "7777",
    ],
)
def test_numbers_that_no_policy_names_stay_at_the_end_and_before_a_long_pause(text: str, quiet: float) -> None:
    assert [f.text for f in said([text], 1.0, EVERY, quiet)] == [text]
    assert [f.text for f in said([text, "And then we left."], 6.0, EVERY, quiet)] == [text, "And then we left."]


@pytest.mark.parametrize(("quiet", "text"), [(1.0, "it is 41115"), (6.0, "it is [REDACTED]")])
def test_at_the_end_of_a_run_nothing_can_follow(quiet: float, text: str) -> None:
    """A text is the same whether it was decoded before the end was known, or behind it (promise 4)."""
    run = session(SessionConfig(redaction=POLICY))
    stream = records(babble([(0.7, False), (2.4, True), (quiet, False)], RATE), repeat(RATE // 5), RATE)
    for record in stream:
        run.feed(record)
    late = decode_all(run, stream[-1].timestamp_ms, lambda _: heard("it is 41115"))
    assert [o.text for o in late if isinstance(o, FinalTranscript) and not o.silent] == [text]
    assert [f.text for f in said(["it is 41115"], 0.7, POLICY, quiet)] == [text]


def test_a_prompt_is_the_same_whether_the_final_before_is_held_or_out() -> None:
    """The first final waits for the second, and the third is prompted by that, decoded at once or much later."""
    prompts = []
    for every in (1, 9):
        run = session(SessionConfig(redaction=EVERY, prompt_seconds=10))
        shape = [part for _ in range(3) for part in ((0.7, False), (1.2, True))] + [(1.0, False)]
        left, seen = ["my number is 202 555", "0123 okay", "bye"], list[str]()

        def hear(window: Window, left: list[str] = left, seen: list[str] = seen) -> Decoded:
            if window.kind is Kind.PARTIAL:
                return heard("")
            seen.append(window.options.prompt)
            return heard(left.pop(0))

        stream = records(babble(shape, RATE), repeat(RATE // 5), RATE)
        for number, record in enumerate(stream):
            run.feed(record)
            if number % every == 0:
                decode_all(run, record.timestamp_ms, hear)
        decode_all(run, stream[-1].timestamp_ms, hear)
        prompts.append(seen)
    assert prompts == [["", "my number is", "okay"]] * 2


def test_what_a_number_goes_on_with_is_masked_behind_a_restart() -> None:
    """The end of a group of several that was held is in the snapshot, without a digit of it."""
    texts = ["my card 4111", "11", "11", "1111", "1111 okay"]
    shape = [part for pause in (1.0, 1.0, 1.0, 1.0, 6.0) for part in ((pause, False), (1.2, True))]
    stream = records(babble(shape, RATE), repeat(RATE // 5), RATE)
    config = SessionConfig(redaction=EVERY)
    run, out, left = session(config), list[str](), list(texts)

    def hear(window: Window) -> Decoded:
        return heard(left.pop(0) if window.kind is Kind.FINAL else "")

    number, restored = 0, False
    while number < len(stream):
        made = [*run.feed(stream[number]), *decode_all(run, stream[number].timestamp_ms, hear)]
        out += [o.text for o in made if isinstance(o, FinalTranscript) and not o.silent]
        number += 1
        if out and not restored:
            restored, snapshot = True, run.snapshot()
            assert json.loads(snapshot)["tracks"][0]["before"] == "my card 555555555555"
            number = run.settled_offset() or number
            run, left = Session.restore(snapshot, config, run.ports), texts[len(out) :]
    assert restored
    assert out == ["my card [CREDIT_CARD]", "", "", "", "[CREDIT_CARD] okay"]


def test_a_snapshot_of_the_version_before_still_masks() -> None:
    run = session(SessionConfig(redaction=EVERY))
    for record in records(babble([(0.5, False)], RATE), repeat(RATE // 5), RATE, ended=False):
        run.feed(record)
    old = run.snapshot().replace(b'"carried":false,"before":""', b'"carried":true')
    assert b'"carried":true' in old
    again = Session.restore(old, run.config, run.ports).snapshot()
    assert json.loads(again)["tracks"][0]["before"][-1:].isdigit()


def test_without_a_policy_nothing_waits_and_nothing_is_masked() -> None:
    finals = said(["My card is 4111 1111", "1111 1111 and that is all."], 1.0, ())
    assert finals[0].text == "My card is 4111 1111"


def test_what_could_go_on_is_out_when_nothing_has_come_for_long() -> None:
    """A publisher that falls silent, or sends only what it takes for speech, leaves no final behind."""
    run = session(SessionConfig(redaction=POLICY))
    stream = records(babble([(0.5, False), (1.2, True), (0.9, False)], RATE), repeat(1600), RATE, ended=False)

    def hear(window: Window) -> Decoded:
        return Decoded("My card is 4111 1111" if window.kind is Kind.FINAL else "", "en", -0.1, 0.0, 1.0)

    assert not [o for o in play(run, stream, decode=hear) if isinstance(o, FinalTranscript)]
    late = stream[-1].timestamp_ms + 40_000
    [final] = [o for o in run.tick(late) if isinstance(o, FinalTranscript)]
    assert final.text == "My card is [PHONE_NUMBER]"
