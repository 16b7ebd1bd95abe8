"""What of a run no final covers yet: the lowest offset is known without a look at each record."""

from hypothesis import given
from hypothesis import strategies as st

from kaption.domain.run.ledger import Ledger


@given(st.permutations(range(12)), st.lists(st.integers(0, 14), max_size=5))
def test_the_oldest_is_the_lowest_offset_that_is_left(offsets: list[int], settled: list[int]) -> None:
    """Frames come into the ledger by sequence; records that were overtaken in the log have lower offsets than their forerunners."""
    ledger, left = Ledger(), dict[int, int]()
    for sequence, offset in enumerate(offsets):
        ledger.frame(offset, sequence, 100 * sequence, 100 * (sequence + 1))
        left[sequence] = offset
        assert ledger.oldest == min(left.values())
    for before in settled:
        ledger.settle(before)
        left = {sequence: offset for sequence, offset in left.items() if sequence >= before}
        assert ledger.oldest == min(left.values(), default=None)
    ledger.settle(None)
    assert ledger.oldest is None
