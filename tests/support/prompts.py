"""The Asterisk prompts where a test needs them."""

import os

import pytest

from bench.asterisk import NO_SPEECH, Prompt, prompts


def require_prompts(min_words: int = 1) -> list[Prompt]:
    """``prompts``, or the test skips; where ``KAPTION_TEST_STRICT=1`` is set (CI) it fails instead."""
    found = prompts(min_words)
    if not found and os.environ.get("KAPTION_TEST_STRICT") == "1":
        pytest.fail(NO_SPEECH)
    if not found:
        pytest.skip(NO_SPEECH)
    return found
