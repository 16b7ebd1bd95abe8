"""From tokens to words, with the real tokenizer and times by the place of a token: token n sounds from second n to n + 1."""

import numpy as np
import pytest
from faster_whisper.tokenizer import Tokenizer
from tokenizers import Tokenizer as Vocabulary

from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import DecodedWord
from kaption_gpu.engine.backends.runtime import TokenTimes
from kaption_gpu.engine.backends.words import time_words

VOCABULARY = Vocabulary.from_file(str(find_weights(Settings()).folder / "tokenizer.json"))
ENGLISH = Tokenizer(VOCABULARY, multilingual=False)
JAPANESE = Tokenizer(VOCABULARY, multilingual=True, task="transcribe", language="ja")


def _words(pieces: list[str], tokenizer: Tokenizer = ENGLISH) -> tuple[DecodedWord, ...]:
    """Return the words of a text that the model wrote in these pieces, one token each."""
    tokens = [token for piece in pieces for token in VOCABULARY.encode(piece, add_special_tokens=False).ids]
    assert len(tokens) == len(pieces)
    count = len(tokens)
    times = TokenTimes(np.arange(count + 1, dtype=float), np.linspace(0.1, 0.9, count))
    return time_words(tokens, times, tokenizer, count)


def _texts(words: tuple[DecodedWord, ...]) -> list[str]:
    return [word.text.strip() for word in words]


@pytest.mark.parametrize(
    "pieces",
    [
        [" at", " seven", " o", "'", "clock", "."],
        [" a", " 40", "-", "year", " plan"],
        [" at", " example", ".", "com", "/", "help", ",", " now"],
        [" only", " 5", "%", "."],
        [" he", " said", ' "', "Hello", ",", '"', " twice"],
    ],
    ids=lambda pieces: "".join(pieces).strip(),
)
def test_words_are_what_spaces_part(pieces: list[str]) -> None:
    words = _words(pieces)
    assert _texts(words) == "".join(pieces).split()
    assert "".join(word.text for word in words) == "".join(pieces)


def test_a_word_of_several_pieces_lasts_from_the_first_to_the_last() -> None:
    seven, clock, now = _words([" seven", " o", "'", "clock", ".", " now"])
    assert (seven.start, seven.end) == (0, 1)
    assert (clock.start, clock.end) == (1, 4), "a mark's time is not a word's"
    assert clock.probability == pytest.approx(np.mean([0.26, 0.42, 0.58]))
    assert (now.start, now.end) == (5, 6)


def test_an_opening_mark_by_itself_goes_to_the_word_behind_it_or_stays_at_the_end() -> None:
    assert [word.text for word in _words([" we", " -", " well", " go"])] == [" we", " - well", " go"]
    assert [word.text for word in _words([" we", " -"])] == [" we -"]


def test_without_spaces_a_character_is_a_word_with_what_closes_it() -> None:
    words = _words(["の", "に", "。", "は"], JAPANESE)
    assert _texts(words) == ["の", "に。", "は"]
    assert [(word.start, word.end) for word in words] == [(0, 1), (1, 2), (3, 4)]
