"""What an operator types: topics, dead letters and the doctor, on real brokers, by their printed words and statuses."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from kaption.adapters.kafka import topics
from kaption.adapters.kafka.embedded import answers
from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker, EmbeddedBroker
from kaption.testing.processes import Child
from kaption.testing.up import kaption
from kaption_schemas.topics import DLQ
from tests.conftest import MakeSettings

CANARY = b"marzipan"


async def run(*arguments: str, **env: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of ``kaption``."""
    process = await asyncio.create_subprocess_exec(
        *kaption(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | env
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode("utf-8", "replace"), err.decode()


async def test_topics_are_made_once_and_checked(kafka: Broker, make_settings: MakeSettings) -> None:
    at = ("--kafka", kafka.bootstrap)
    status, _, err = await run("topics", "check", *at)
    assert status == 78
    assert "the topic does not exist. Run `kaption topics create`." in err
    status, out, _ = await run("topics", "create", *at, "--partitions", "2", "--replication", str(kafka.replication))
    assert (status, out.splitlines()[0]) == (0, "created media.events.v1")
    assert (await run("topics", "create", *at, "--json"))[:2] == (0, '{"created": []}\n')
    assert (await run("topics", "check", *at))[:2] == (0, "every topic is as it should be\n")


async def dead_letters(settings: Settings) -> None:
    """Three of them, the last one with a terminal's escape sequence where a stranger could put it."""
    await topics.create(settings)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        for number, reason in enumerate(("odd_bytes", "bad_json", "odd_bytes")):
            headers = [
                ("errors.topic", b"media.events.v1"),
                ("errors.partition", b"1"),
                ("errors.offset", str(40 + number).encode()),
                ("errors.reason", reason.encode()),
                ("errors.stage", b"validate"),
                ("ce_type", b"kaption.audio.frame" if number < 2 else b"\x1b[31m"),
            ]
            # The first was too large: this is its beginning.
            headers += [("errors.body_bytes", b"2000000"), ("errors.body_sha256", b"0" * 64)] if number == 0 else []
            await producer.send_and_wait(DLQ.name, CANARY, b"talk", partition=0, headers=headers)


async def test_dead_letters_are_told_without_their_bodies(kafka: Broker, make_settings: MakeSettings) -> None:
    settings = make_settings(kafka)
    await dead_letters(settings)
    at = ("--kafka", kafka.bootstrap)
    status, out, _ = await run("dlq", "list", *at)
    assert status == 0
    assert [line.split()[2] for line in out.splitlines()] == ["odd_bytes", "bad_json", "odd_bytes"]
    assert "media.events.v1/1@41" in out
    status, out, _ = await run("dlq", "list", *at, "--reason", "odd_bytes", "--limit", "1", "--json")
    (letter,) = [json.loads(line) for line in out.splitlines()]
    assert (letter["offset"], letter["size"], letter["stream"]) == ("42", len(CANARY), "talk")
    assert "whole number of samples" in letter["meaning"]
    status, out, _ = await run("dlq", "show", letter["at"], *at)
    assert "odd_bytes" in out
    assert "\x1b" not in out
    assert CANARY.decode() not in out
    assert (await run("dlq", "show", letter["at"], *at, "--body"))[1] == CANARY.decode()
    status, out, err = await run("dlq", "show", "0:0", *at, "--body")
    assert (status, out, "keeps the first" in err) == (1, "", True)
    assert "media.events.v1/1@40" in err
    status, _, err = await run("dlq", "show", "0:99", *at)
    assert (status, "no dead letter 0:99" in err) == (1, True)
    assert (await run("dlq", "show", "first", *at))[0] == 2


async def test_a_transactions_marker_is_no_dead_letter(kafka: Broker, make_settings: MakeSettings) -> None:
    """The pool's dead letters are in transactions: a marker is often the last thing in a partition."""
    settings = make_settings(kafka)
    await topics.create(settings)
    async with (
        AIOKafkaProducer(bootstrap_servers=settings.kafka, transactional_id="letters") as producer,
        producer.transaction(),
    ):
        await producer.send_and_wait(DLQ.name, CANARY, b"talk", partition=0)
    async with asyncio.timeout(60):
        status, _, err = await run("dlq", "show", "0:1", "--kafka", kafka.bootstrap)
    assert (status, "no dead letter 0:1" in err) == (1, True)
    assert (await run("dlq", "show", "0:0", "--kafka", kafka.bootstrap))[0] == 0


async def test_the_doctor_names_each_remedy(
    fresh_kafka: EmbeddedBroker, make_settings: MakeSettings, tmp_path: Path
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    at = ("--kafka", fresh_kafka.bootstrap, "--s3", away)
    # In the working directory's own folder a worker may have measured already.
    status, out, _ = await run("doctor", *at, "--json", KAPTION_DATA=str(tmp_path / "data"))
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert status == 1
    assert {name: check["ok"] for name, check in checks.items()} == {
        "broker": True,
        "topics": False,
        "codecs": True,
        "transport": True,
        "store": False,
        "model": True,
        "backend": None,
        "clock": None,
        "sandbox": True,
    }
    assert checks["topics"]["remedy"] == "Run `kaption topics create`."
    assert "KAPTION_S3" in checks["store"]["remedy"]
    status, out, _ = await run("doctor", "--kafka", f"127.0.0.1:{free_port()}", "--s3", away, "--model", "huge")
    assert status == 1
    assert "no Kafka broker answers" in out
    assert "not checked: see broker" in out
    assert "no weights are known for 'huge'" in out


@pytest.fixture
async def guarded(apache_home: Path, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a node that asks for SCRAM credentials; the admin's are admin/admin."""
    port = free_port()
    jaas = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="admin" password="admin";'
    config = {
        "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-256",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-256",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",
        "listener.name.client.scram-sha-256.sasl.jaas.config": jaas,
    }
    argv = [str(apache_home / "node"), "--data", str(tmp_path / "node"), "--port", str(port)]
    argv += ["--controller-port", str(free_port()), "--scram", "admin=admin", "--scram", "acme=secret"]
    for name, value in config.items():
        argv += ["--set", f"{name}={value}"]
    admin = Settings(
        kafka=f"127.0.0.1:{port}", kafka_security="SASL_PLAINTEXT", kafka_username="admin", kafka_password="admin"
    )
    with Child(argv, tmp_path / "node.log").during():
        async with asyncio.timeout(60):
            while not await answers(admin):
                await asyncio.sleep(0.3)
        yield admin.kafka


@pytest.mark.apache
async def test_credentials_that_are_wrong_or_not_enough_are_named(guarded: str, tmp_path: Path) -> None:
    def user(name: str, password: str) -> dict[str, str]:
        return {
            "KAPTION_KAFKA_SECURITY": "SASL_PLAINTEXT",
            "KAPTION_KAFKA_USERNAME": name,
            "KAPTION_KAFKA_PASSWORD": password,
        }

    at = ("--kafka", guarded)
    status, _, err = await run("topics", "create", *at, **user("admin", "marzipan"))
    assert status == 77
    assert "refuses the credentials" in err
    assert "KAPTION_KAFKA_PASSWORD" in err
    assert "marzipan" not in err
    status, _, err = await run("up", "--data", str(tmp_path / "up"), *at, **user("admin", "marzipan"))
    assert status == 77
    status, _, err = await run("topics", "create", *at, **user("acme", "secret"))
    assert (status, "'acme'" in err) == (78, True)
    assert (await run("topics", "create", *at, **user("admin", "admin")))[0] == 0
