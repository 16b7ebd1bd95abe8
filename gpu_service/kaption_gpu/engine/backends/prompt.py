"""Makes the prompt before the start token: the run's vocabulary, then its earlier text, within one budget.

CTranslate2 needs the start token at one position in a batch, so earlier text is truncated to one of a few lengths. The
length follows from the run alone; windows with prompts of other lengths are decoded separately, not padded.
"""

from collections.abc import Callable

from kaption.domain.decoding.port import DecodeOptions

#: Tokens of vocabulary and earlier text together, of the 448 positions that prompt and output share (HAZARDS, Whisper 1).
BUDGET = 150
#: Tokens of the budget that the vocabulary may use.
VOCABULARY_BUDGET = 96
#: Lengths in tokens to which earlier text is truncated, at its front.
LENGTHS = (0, 8, 16, 32, 48, 64, 96, 148)
#: Timestamp tokens from 0.00 s to the one that closes earlier text, 3.00 s; any would do.
_CLOSING = 150


def prompt_tokens(options: DecodeOptions, encode: Callable[[str], list[int]], first_timestamp: int) -> tuple[int, ...]:
    """Return the tokens of the prompt, without the token that opens it; empty if there is nothing in it.

    Earlier text is between two timestamps, as in the model's training: after text without them the model omits them too,
    and writes short utterances twice (10 % word errors instead of 4).

    Args:
        options: Its ``vocabulary`` and ``prompt`` are used.
        encode: Text to tokens, without special ones.
        first_timestamp: The token of 0.00 s.
    """
    vocabulary = _vocabulary(options.vocabulary, encode)
    if not options.prompt.strip():
        return tuple(vocabulary)
    earlier = encode(" " + options.prompt.strip())
    room = min(len(earlier), BUDGET - len(vocabulary) - 2)
    length = max(n for n in LENGTHS if n <= room)
    if not length:
        return tuple(vocabulary)
    return (*vocabulary, first_timestamp, *earlier[len(earlier) - length :], first_timestamp + _CLOSING)


def _vocabulary(terms: tuple[str, ...], encode: Callable[[str], list[int]]) -> list[int]:
    """Return the first terms that fit, as a list in a sentence; never half a term."""
    tokens: list[int] = []
    for number, term in enumerate(terms):
        more = encode((", " if number else " ") + term.strip())
        if len(tokens) + len(more) >= VOCABULARY_BUDGET:
            break
        tokens += more
    return tokens + encode(".") if tokens else []
