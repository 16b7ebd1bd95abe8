"""How long the pool waits before it reads on: what it reads costs time that late finals lack, but nothing may pile up."""

from kaption_gpu.lanes.polling import POLL_RECORDS, read_pause


def test_it_is_longer_while_finals_are_late() -> None:
    assert read_pause(20, finals_late=True) > 2 * read_pause(20, finals_late=False)


def test_records_that_a_fetch_left_behind_do_not_wait_longer() -> None:
    assert read_pause(POLL_RECORDS, finals_late=True) == read_pause(POLL_RECORDS, finals_late=False)
