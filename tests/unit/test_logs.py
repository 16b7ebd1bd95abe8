"""A canary in every place where a library or an exception could carry it reaches no line of the log."""

import asyncio
import gc
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from kaption.adapters import logs
from kaption.adapters.settings import Settings

CANARY = "marzipan"


class Captured:
    """The log of one process, by line."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Log at DEBUG as a process would; restore the root logger after."""
    root = logging.getLogger()
    before = (tuple(root.handlers), root.level, sys.excepthook)
    out = Captured()
    logs.configure(Settings(log_level="DEBUG"), "agent", out.stream)
    yield out
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    sys.excepthook = before[2]
    logging.captureWarnings(capture=False)


class Record:
    """What a library would print by repr."""

    def __repr__(self) -> str:
        return f"<Record value={CANARY}>"


def test_our_own_lines_carry_scalars_as_fields(captured: Captured) -> None:
    logging.getLogger("kaption.test").info(
        "lane_ready",
        extra={"topic": "audio.live.v1", "partition": 3, "body": b"x", "costs": {"ct2": 8.5}, "words": {"a": CANARY}},
    )
    (line,) = captured.lines
    assert line["event"] == "lane_ready"
    assert (line["costs"], line["words"]) == ({"ct2": 8.5}, "dict")
    assert (line["process"], line["topic"], line["partition"], line["body"]) == ("agent", "audio.live.v1", 3, "bytes")


def test_an_exception_is_told_by_type_and_place_only(captured: Captured) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("kaption.test").exception("The record could not be read")
    (line,) = captured.lines
    assert line["error"]["type"] == "ValueError"
    assert "test_logs.py" in line["error"]["at"][-1]
    assert CANARY not in captured.text


@pytest.mark.parametrize("name", ["aiokafka.producer.sender", "faust.app", "mode.supervisors", "asyncio", "unheard.of"])
def test_a_library_prints_no_record(captured: Captured, name: str) -> None:
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.debug("value %s", CANARY)
    logger.info("value %s", CANARY)
    logger.warning("Publishing %r to %s failed: %r", Record(), CANARY, ValueError(CANARY))
    logger.warning(f"Publishing {Record()!r} failed")
    logger.error(f"Lost '{CANARY}'")
    logger.error(f"Skipping record {CANARY} of {CANARY}@example.com")
    logger.error(CANARY + " was skipped")
    logger.error("Task exception was never retrieved\nfuture: " + repr(Record()))
    try:
        raise RuntimeError(CANARY)
    except RuntimeError as error:
        logger.exception("Crashed: %r", error)
    assert CANARY not in captured.text
    assert len(captured.lines) == 7
    assert captured.lines[0]["message"] == "Publishing <Record> to <str> failed: <ValueError>"
    assert captured.lines[3]["message"] == "Skipping record"
    assert captured.lines[5]["message"] == "Task exception was never retrieved"


def through_a_wrapper(logger: logging.Logger, message: str) -> None:
    logger.warning(message)


def test_a_library_s_own_words_are_told_whole(captured: Captured) -> None:
    logger = logging.getLogger("faust.app")
    logger.warning("Unclosed connection: it is closed now (aiokafka)")
    through_a_wrapper(logger, "Rebalancing: 3 partitions")
    through_a_wrapper(logger, CANARY)
    assert [line["message"] for line in captured.lines[:2]] == [
        "Unclosed connection: it is closed now (aiokafka)",
        "Rebalancing: 3 partitions",
    ]
    assert "test_logs.py:" in captured.lines[2]["message"]
    assert CANARY not in captured.text


async def test_a_task_that_failed_unseen_is_told_by_asyncio_s_words(captured: Captured) -> None:
    async def fail() -> None:
        raise ValueError(CANARY)

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()
    asyncio.get_running_loop().call_exception_handler({"message": f"Exception in callback f({CANARY})"})
    assert [line["message"] for line in captured.lines] == [
        "Task exception was never retrieved",
        "Exception in callback f(",
    ]
    assert captured.lines[0]["error"]["type"] == "ValueError"
    assert CANARY not in captured.text


def test_what_nobody_caught_is_told_in_the_same_form(captured: Captured) -> None:
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        sys.excepthook(KeyError, error, error.__traceback__)
    (line,) = captured.lines
    assert line["level"] == "CRITICAL"
    assert line["error"]["type"] == "KeyError"
    assert CANARY not in captured.text


def test_a_secret_never_prints() -> None:
    settings = Settings(kafka_password=CANARY, s3_secret_key=CANARY)
    assert CANARY not in repr(settings) + str(settings)


def test_a_library_repeats_itself_once_in_a_while(captured: Captured) -> None:
    logger, handler = logging.getLogger("aiokafka.conn"), logging.getLogger().handlers[0]
    for second in (0.0, 0.1, 9.9, 10.0, 11.0, 30.0):
        message = {
            "name": logger.name,
            "levelno": logging.ERROR,
            "levelname": "ERROR",
            "msg": "Unable to connect to %s",
        }
        record = logging.makeLogRecord(message | {"args": (CANARY,)})
        record.created = 1000 + second
        handler.handle(record)
    assert [line.get("repeats") for line in captured.lines] == [None, 2, 1]
    for _ in range(3):
        logging.getLogger("kaption.test").warning("lane_restarted")
    assert len(captured.lines) == 6, "what we log ourselves is never left out"
