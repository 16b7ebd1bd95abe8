"""Records are acknowledged in order, whatever is done first, and a tenant with many is not read on."""

from kaption_schemas.codec import Origin
from kaption_streams.intake import Intake, Record


class Desk:
    """An intake, what it acknowledged, and whom it holds."""

    def __init__(self, ahead: int = 4, unacknowledged: int = 8) -> None:
        self.acked: list[tuple[int, int, int]] = []
        self.held: set[str] = set()
        self.intake = Intake(self.held.add, self.held.discard, ahead, unacknowledged)

    def read(self, offset: int, generation: int = 1, partition: int = 0, tenant: str = "acme") -> Record | None:
        origin = Origin(tenant, f"{tenant}.media.objects.v1", partition, offset, 0, None, b"", ())
        return self.intake.arrive(origin, generation, lambda: self.acked.append((generation, partition, offset)))

    def new(self, offset: int, generation: int = 1, partition: int = 0, tenant: str = "acme") -> Record:
        record = self.read(offset, generation, partition, tenant)
        assert record is not None
        return record


def test_a_partition_is_acknowledged_in_order_and_others_do_not_wait() -> None:
    desk = Desk()
    film, clip, other = desk.new(5), desk.new(6), desk.new(1, partition=1)
    desk.intake.done(clip)
    assert desk.acked == []
    desk.intake.done(other)
    assert desk.acked == [(1, 1, 1)]
    desk.intake.done(film)
    assert desk.acked[1:] == [(1, 0, 5), (1, 0, 6)]
    assert desk.intake.in_work == 0


def test_a_record_is_done_with_the_last_of_its_objects() -> None:
    desk = Desk()
    record = desk.new(0)
    record.left = 2
    desk.intake.done(record)
    assert desk.acked == []
    desk.intake.done(record)
    assert desk.acked == [(1, 0, 0)]


def test_a_tenant_with_many_is_held_and_another_is_not() -> None:
    desk = Desk()
    records = [desk.new(offset) for offset in range(4)]
    desk.new(0, tenant="globex")
    assert desk.held == {"acme"}
    desk.intake.done(records[1])
    assert desk.held == {"acme"}
    desk.intake.done(records[2])
    assert desk.held == set()


def test_what_waits_behind_a_film_is_bounded_too() -> None:
    desk = Desk()
    film = desk.new(0)
    for offset in range(1, 8):
        desk.intake.done(desk.new(offset))
    assert desk.held == {"acme"}
    desk.intake.done(film)
    assert len(desk.acked) == 8
    assert desk.held == set()


def test_after_a_rebalance_what_is_in_work_is_known_and_acknowledged_anew() -> None:
    desk = Desk()
    film, done, waiting = desk.new(0), desk.new(1), desk.new(2)
    desk.intake.done(done)
    assert desk.read(0, generation=2) is None
    assert desk.read(1, generation=2) is None
    desk.intake.forget(waiting)
    again = desk.new(2, generation=2)
    desk.intake.done(film)
    assert desk.acked == [(2, 0, 0), (2, 0, 1)]
    desk.intake.done(again)
    assert desk.acked[2:] == [(2, 0, 2)]
    assert desk.intake.in_work == 0


def test_what_another_member_has_now_is_not_acknowledged_here() -> None:
    desk = Desk()
    film = desk.new(7)
    desk.new(0, generation=2, partition=1)
    desk.intake.done(film)
    assert desk.acked == []
    assert desk.intake.in_work == 1
