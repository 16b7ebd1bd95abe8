"""What stands before the start token, with one token a character: easy to count."""

import pytest

from kaption.domain.decoding.port import DecodeOptions
from kaption_gpu.engine.backends.prompt import LENGTHS, prompt_tokens

CLOSING = chr(ord("<") + 150)


def _encode(text: str) -> list[int]:
    return [ord(c) for c in text]


def _prompt(vocabulary: tuple[str, ...] = (), earlier: str = "") -> str:
    options = DecodeOptions(prompt=earlier, vocabulary=vocabulary)
    return "".join(chr(token) for token in prompt_tokens(options, _encode, ord("<"))).replace(CLOSING, ">")


def test_nothing_to_say_is_no_prompt() -> None:
    assert _prompt() == ""
    assert _prompt(earlier="  ") == ""


def test_vocabulary_stands_first_and_earlier_text_is_cut_at_its_front() -> None:
    assert _prompt(("Ann", "Bo")) == " Ann, Bo."
    assert _prompt(("Ann",), "we met at noon") == " Ann.<" + " at noon"[-8:] + ">"


@pytest.mark.parametrize("size", range(0, 400, 7))
def test_earlier_text_has_one_of_few_lengths_within_the_budget(size: int) -> None:
    alone = _prompt(earlier="x" * size)
    assert len(alone.strip("<>")) in LENGTHS
    named = _prompt(("Kaption",), "x" * size)
    assert len(named.removeprefix(" Kaption.").strip("<>")) in LENGTHS
    assert len(named) <= 150


def test_terms_that_do_not_fit_are_left_out_whole() -> None:
    terms = tuple(f"term{n:03}" for n in range(200))
    prompt = _prompt(terms, "x" * 400)
    assert prompt.startswith(" term000, term001")
    assert len(prompt) <= 150
    assert prompt.split(".", maxsplit=1)[0].split(", ")[-1] in terms
