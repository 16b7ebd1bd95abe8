"""Which words of a growing segment are stable."""

from hypothesis import given
from hypothesis import strategies as st

from kaption.domain.decoding.port import SAMPLE_RATE
from kaption.domain.run.agreement import AGREE_SECONDS, Agreement, joined, plain, words_of

STEP = round(AGREE_SECONDS * SAMPLE_RATE)


def after(*hypotheses: tuple[float, str]) -> Agreement:
    """Make an agreement from texts, each with the steps of audio that it covers."""
    agreement = Agreement()
    for steps, text in hypotheses:
        agreement.update(text, round(steps * STEP))
    return agreement


def test_words_on_which_two_hypotheses_agree_are_stable() -> None:
    found = after((1, "press one to mute"), (2, "press one to mood or"))
    assert (found.stable, found.tail) == (("press", "one", "to"), ("mood", "or"))


def test_two_that_heard_almost_the_same_make_nothing_stable() -> None:
    assert after((1, "call for on"), (1.9, "call for on")).stable == ()


def test_all_since_the_one_that_counts_must_agree() -> None:
    assert after((1, "call forward"), (1.5, "call for"), (2, "call forward on")).stable == ("call",)


def test_older_ones_are_forgotten() -> None:
    found = after((1, "as we're in"), (2, "password is wrong"), (3, "password incorrect"))
    assert found.stable == ("password",)


def test_flips_of_case_punctuation_and_digits_do_not_matter() -> None:
    found = after((1, "Three. to eject, the"), (2, "3 to Eject the last"))
    assert found.stable == ("3", "to", "Eject", "the")
    assert plain("Twenty,") == plain("20") != plain("2")
    assert plain("...") == "..."


def test_what_follows_stable_words_that_a_hypothesis_says_otherwise_is_found() -> None:
    found = after((1, "press for to exit"), (2, "press for to exit"), (3, "press 4 to exit the menu"))
    assert found.stable == ("press", "for", "to", "exit")
    assert found.tail == ("the", "menu")


FLIPS = tuple((n / 2, f"menu {word} to lock") for n, word in enumerate(("due", "2", "2", "to", "two", "2")))


def test_a_word_that_goes_to_and_fro_is_stable_as_most_say_it_and_what_follows_with_it() -> None:
    before = after(*FLIPS)
    assert (before.stable, before.tail) == (("menu",), ("2", "to", "lock"))
    found = after(*FLIPS, (3, "menu to to lock the"))
    assert (found.stable, found.tail) == (("menu", "2", "to", "lock"), ("the",))


def test_a_few_hypotheses_make_no_vote() -> None:
    assert after((0, "to lock"), (2, "two lock"), (2.5, "to lock"), (3, "to lock")).stable == ()


def test_a_word_that_no_half_says_stays_open() -> None:
    said = ("to", "due", "do", "too", "true", "blue", "who")
    assert after(*((n / 2, f"{word} lock") for n, word in enumerate(said))).stable == ()


def test_who_has_no_word_there_yet_stops_the_vote() -> None:
    said = ("menu", "menu 2", "menu to", "menu 2", "menu two", "menu to", "menu 2")
    assert after(*((n / 2, text) for n, text in enumerate(said))).stable == ("menu",)


def test_what_is_too_old_to_vote_is_forgotten() -> None:
    agreement = Agreement()
    for steps in range(100):
        agreement.update("to" if steps % 2 else "due", steps * STEP // 2)
        agreement.update("", steps * STEP // 2)
    assert len(agreement._since) < 20  # what is kept is what this is about


def test_scripts_without_spaces_are_agreed_on_letter_by_letter() -> None:
    said = "\u4eca\u65e5\u306f\u3001\u3068\u3066\u3082\u5929\u6c17\u304c\u3044\u3044\u306e\u3067"
    found = after((1, said[:6]), (2, said[:9]), (3, said))
    assert joined(found.stable) == said[:9]
    assert joined(found.stable + found.tail) == said
    thai = "\u0e27\u0e31\u0e19\u0e19\u0e35\u0e49 \u0e2d\u0e32\u0e01\u0e32\u0e28\u0e14\u0e35"
    assert joined(after((1, thai), (2, thai)).stable) == thai


@given(st.text(alphabet="ab1 \u4eca\u3042\u0e01,.\u3001", max_size=30))
def test_words_are_put_together_as_they_were(text: str) -> None:
    assert joined(words_of(text)) == " ".join(text.split())
    assert words_of(joined(words_of(text))) == words_of(text)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.sampled_from(["a", "b", "four", "4"]), max_size=6)), max_size=12)
)
def test_the_stable_part_only_grows(hypotheses: list[tuple[int, list[str]]]) -> None:
    agreement, heard = Agreement(), 0
    before: tuple[str, ...] = ()
    for steps, words in hypotheses:
        heard += steps * STEP // 2
        agreement.update(" ".join(words), heard)
        assert agreement.stable[: len(before)] == before
        before = agreement.stable
