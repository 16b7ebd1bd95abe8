"""When the records of a tenant whose topics are gone are left out, and when they are written again."""

from kaption_gpu.lanes.reach import GRACE_SECONDS, Reach

TOPIC = "acme.transcripts.final.v1"


def test_a_topic_that_stays_away_is_left_out_and_one_that_comes_back_is_not() -> None:
    now = [0.0]
    reach = Reach(lambda: now[0])
    reach.fails({TOPIC})
    assert (reach.shed(TOPIC), reach.left_out(TOPIC), reach.to_look({TOPIC})) == (True, False, False)
    now[0] = GRACE_SECONDS
    assert reach.to_look({TOPIC}), "it is looked once more before anything is lost"
    reach.seen({"another"})
    assert reach.left_out(TOPIC)
    assert not reach.to_look({TOPIC})
    now[0] += 60
    assert reach.to_look({TOPIC})
    reach.seen({TOPIC})
    assert not reach.shed(TOPIC)
    reach.fails({TOPIC})
    assert not reach.left_out(TOPIC), "it counts from anew"


def test_one_that_was_denied_is_tried_again_less_and_less_often() -> None:
    now, tries = [0.0], list[float]()
    reach = Reach(lambda: now[0])
    for second in range(3600):
        now[0] = float(second)
        reach.seen({TOPIC})  # it is there all the time
        if not reach.left_out(TOPIC) and (not tries or now[0] >= GRACE_SECONDS):
            tries.append(now[0])
            reach.fails({TOPIC}, denied=True)
    assert tries == [0, 30, 90, 210, 450, 930, 1530, 2130, 2730, 3330]
    reach.works({TOPIC})
    assert not reach.shed(TOPIC)


def test_a_topic_that_was_closed_first_and_is_gone_then_holds_nobody_up() -> None:
    now = [0.0]
    reach = Reach(lambda: now[0])
    reach.fails({TOPIC}, denied=True)
    now[0] = GRACE_SECONDS
    assert not reach.left_out(TOPIC), "it is tried again"
    reach.fails({TOPIC})  # the try found no topic
    assert reach.left_out(TOPIC)
    now[0] += 60
    assert reach.to_look({TOPIC})
    reach.seen({"another"})
    assert reach.left_out(TOPIC)
    reach.seen({TOPIC})
    assert not reach.left_out(TOPIC)


def test_partials_are_tried_again_where_they_were_denied() -> None:
    now = [0.0]
    reach = Reach(lambda: now[0])
    reach.fails({TOPIC}, denied=True)
    assert reach.shed(TOPIC)
    now[0] = GRACE_SECONDS
    assert not reach.shed(TOPIC), "the grant may be there again"
    reach.fails({TOPIC}, denied=True)
    assert reach.shed(TOPIC)
    now[0] += 60
    assert not reach.shed(TOPIC)
