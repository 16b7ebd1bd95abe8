"""The table of services: what runs, and what stops before what."""

from dataclasses import replace

import pytest

from kaption.adapters.settings import Settings
from kaption.cli.pipeline import instances, stop_groups
from kaption.service.services import SERVICES, Service, find, running, stop_order
from kaption_schemas.topics import TOPICS
from kaption_streams import bootstrap


def names(services: tuple[Service, ...]) -> list[str]:
    return [one.name for one in services]


@pytest.mark.parametrize(
    ("stages", "agents"), [("fused", ["live"]), ("staged", ["validate", "redact", "chunk"])]
)  # fmt: skip
def test_each_way_to_run_the_stages_has_its_processes(stages: str, agents: list[str]) -> None:
    settings = Settings.model_validate({"stages": stages, "workers": 2})
    assert names(running(settings)) == [*agents, "files", "pool"]
    processes = instances(settings)
    assert [one.spec.name for one in processes] == [*agents, "files", "pool-1", "pool-2"]
    assert len({one.url for one in processes}) == len(processes)
    assert stop_groups(processes) == [(*agents, "files"), ("pool-1", "pool-2"), ("s3", "kafka")]


def test_a_service_stops_behind_all_that_feed_it() -> None:
    a, b, c = (
        replace(SERVICES[0], name=name, stops_after=after) for name, after in (("a", ("b",)), ("b", ("c",)), ("c", ()))
    )
    assert [names(group) for group in stop_order([a, b, c])] == [["c"], ["b"], ["a"]]
    assert [names(group) for group in stop_order([a, c])] == [["a", "c"]]
    with pytest.raises(ValueError, match="a, b stop after each other"):
        stop_order([a, replace(b, stops_after=("a",))])


def test_every_row_is_a_process_and_has_a_command_line_of_its_own() -> None:
    assert {one.name for one in SERVICES if one.module == "kaption_streams"} == bootstrap._WORK.keys()
    for one in SERVICES:
        assert find(one.module, one.arguments) is one
    assert find("kaption_streams", ("live", "--stage", "all")) is None


def test_every_topic_is_read_or_written_by_a_service() -> None:
    touched = {topic.name for one in SERVICES for topic in one.topics}
    assert touched == {topic.name for topic in TOPICS}


def test_one_group_reads_one_stage() -> None:
    """Members of a group need metadata of all of its topics, and each start moves all of its partitions."""
    for stages in ("fused", "staged"):
        together = running(Settings.model_validate({"stages": stages}))
        assert len({one.group for one in together}) == len(together)
