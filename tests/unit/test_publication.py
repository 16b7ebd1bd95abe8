"""What a run publishes of sensitive numbers that a pause parts, through the session and the real recognisers."""

from itertools import repeat

from kaption.adapters.presidio import PresidioRedactor
from kaption.domain.decoding import Decoded, DecodedWord, Kind, Window
from kaption.domain.outputs import Latency
from kaption.domain.run import Ports, SessionConfig
from kaption.domain.session import Session
from kaption_schemas.records import FinalTranscript
from tests.support.runs import KEY, babble, play, records
from tests.support.voices import MODEL, EnergyDetector

RATE = 16000
POLICY = ("CREDIT_CARD", "PHONE_NUMBER")


def said(texts: list[str], pause: float, policy: tuple[str, ...] = POLICY) -> list[FinalTranscript]:
    """Finals of a run whose stretches of speech, with ``pause`` between, are heard as ``texts``."""
    remaining = list(texts)

    def hear(window: Window) -> Decoded:
        text = remaining.pop(0) if window.kind is Kind.FINAL else ""
        words = tuple(DecodedWord(f" {word}", i * 0.1, i * 0.1 + 0.1, 0.9) for i, word in enumerate(text.split()))
        return Decoded(text, "en", -0.1, 0.0, 1.0, words)

    shape = [part for _ in texts for part in ((pause, False), (1.2, True))] + [(pause, False)]
    config = SessionConfig(redaction=policy)
    run = Session(KEY, Latency.LIVE, config, Ports(EnergyDetector, PresidioRedactor(), MODEL))
    out = play(run, records(babble(shape, RATE), repeat(1600), RATE), decode=hear)
    return [o for o in out if isinstance(o, FinalTranscript) and not o.silent]


def test_a_card_across_a_pause_is_one_card() -> None:
    finals = said(["My card is 4111 1111", "1111 1111 and that is all."], 1.0)
    assert [f.text for f in finals] == ["My card is [CREDIT_CARD]", "and that is all."]
    assert not any(c.isdigit() for f in finals for w in f.words for c in w.text)


def test_the_beginning_of_a_card_that_could_be_a_phone_number_waits_too() -> None:
    finals = said(["It is 5151 9456 94", "51 7550 thank you."], 1.0)
    assert not any(c.isdigit() for f in finals for c in f.text)


def test_past_the_limit_neither_half_is_shown() -> None:
    finals = said(["My card is 4111 1111", "1111 1111 and that is all."], 6.0)
    assert finals[0].text == "My card is [REDACTED]"
    assert not any(c.isdigit() for f in finals for c in f.text)


def test_without_a_policy_nothing_waits_and_nothing_is_masked() -> None:
    finals = said(["My card is 4111 1111", "1111 1111 and that is all."], 1.0, ())
    assert finals[0].text == "My card is 4111 1111"


def test_what_could_go_on_is_out_when_nothing_has_come_for_long() -> None:
    """A publisher that falls silent, or sends only what it takes for speech, leaves no final behind."""
    run = Session(KEY, Latency.LIVE, SessionConfig(redaction=POLICY), Ports(EnergyDetector, PresidioRedactor(), MODEL))
    stream = records(babble([(0.5, False), (1.2, True), (0.9, False)], RATE), repeat(1600), RATE, ended=False)

    def hear(window: Window) -> Decoded:
        return Decoded("My card is 4111 1111" if window.kind is Kind.FINAL else "", "en", -0.1, 0.0, 1.0)

    assert not [o for o in play(run, stream, decode=hear) if isinstance(o, FinalTranscript)]
    late = stream[-1].timestamp_ms + 40_000
    [final] = [o for o in run.tick(late) if isinstance(o, FinalTranscript)]
    assert final.text == "My card is [REDACTED]"
