"""Plays a run through the real session with given texts for its stretches of speech, partials included."""

from collections.abc import Sequence
from itertools import repeat

from kaption.domain.decoding.port import SAMPLE_RATE, Decoded, DecodedWord, Kind, Window
from kaption.domain.records import Latency, Output
from kaption.domain.redaction.matches import TextRedactor
from kaption.domain.run.config import Ports, SessionConfig
from kaption.domain.run.session import Session
from kaption.testing.voices import MODEL, EnergyDetector
from tests.support.runs import KEY, babble, play, records

RATE = SAMPLE_RATE
_SPEECH = 2.4


def say(
    texts: Sequence[str], pauses: Sequence[float], redactor: TextRedactor, policy: tuple[str, ...], quiet: float = 0.0
) -> list[Output]:
    """Return a run's outputs, with ``texts`` for its stretches of speech after ``pauses`` seconds each; ``quiet`` seconds follow.

    A partial gets as much of a text as it has of the sound.
    """
    finals = 0

    def hear(window: Window) -> Decoded:
        nonlocal finals
        said = texts[min(finals, len(texts) - 1)].split()
        if window.kind is Kind.FINAL:
            finals += 1
        else:
            heard = min(1.0, len(window.audio) / SAMPLE_RATE / _SPEECH)
            said = said[: max(1, round(heard * len(said)))]
        # Partials have no word times, so none of their words is settled, and each begins at the segment's start.
        timed = enumerate(said if window.kind is Kind.FINAL else ())
        words = tuple(DecodedWord(f" {word}", i * 0.1, i * 0.1 + 0.1, 0.9) for i, word in timed)
        return Decoded(" ".join(said), "en", -0.1, 0.0, 1.0, words)

    shape = [part for pause in pauses for part in ((pause, False), (_SPEECH, True))] + [(quiet, False)]
    run = Session(KEY, Latency.LIVE, SessionConfig(redaction=policy), Ports(EnergyDetector, redactor, MODEL))
    return play(run, records(babble(shape, RATE), repeat(RATE // 5), RATE), decode=hear)
