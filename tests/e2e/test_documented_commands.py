"""README.md and docs/kafka.md: programs and commands run as they are printed, against a running pipeline."""

import asyncio
import re
import shlex
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import soundfile
from minio import Minio
from ulid import ULID

from bench.debian import kcat
from kaption.testing.brokers import ROOT
from kaption.testing.up import Up, environment, running_up

PAGE = (ROOT / "docs" / "kafka.md").read_text()
BLOCKS = {name: code for _, name, code in re.findall(r"^```(\w+) (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)}
SPEECH = ROOT / "demo" / "speech" / "harbour-1-joe.flac"
SECONDS = 120


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    async with running_up(tmp_path_factory.mktemp("up")) as running:
        yield running


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    path = tmp_path_factory.mktemp("wave") / "call.wav"
    soundfile.write(path, samples, rate)
    return path


async def execute(up: Up, folder: Path, command: list[str], **env: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env=environment(up, **env), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


async def program(up: Up, folder: Path, name: str, *arguments: str) -> str:
    (folder / name).write_text(BLOCKS[name])
    return await execute(up, folder, ["python", name, *arguments])


def said(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{5,}", text.lower()))


EXPECTED = said(SPEECH.with_suffix(".txt").read_text()) - {"pause"}


def test_no_block_of_the_page_is_left_out() -> None:
    programs = {f"{verb}_{client}.py" for verb in ("publish", "read") for client in ("aiokafka", "confluent")}
    assert set(BLOCKS) == programs | {"publish_object", "read_finals", "read_dead_letters"}


@pytest.mark.parametrize(("publisher", "reader"), [("aiokafka", "confluent"), ("confluent", "aiokafka")])
async def test_a_live_run_goes_in_by_one_client_and_comes_out_by_another(
    up: Up, wave: Path, tmp_path: Path, publisher: str, reader: str
) -> None:
    run = (await program(up, tmp_path, f"publish_{publisher}.py", f"example-{publisher}", str(wave))).strip()
    printed = await program(up, tmp_path, f"read_{reader}.py", run)
    assert printed.splitlines()[-1] == "completed: ended"
    heard = said(printed)
    assert len(EXPECTED & heard) >= 0.8 * len(EXPECTED)


async def test_the_readmes_commands_publish_and_follow(up: Up, wave: Path) -> None:
    lines = re.findall(r"^    (kaption (?:publish|follow) [^#\n]*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    follow, live, file, subtitles = map(shlex.split, lines)
    here = {"KAPTION_KAFKA": up.kafka, "KAPTION_S3": up.s3}
    await execute(up, wave.parent, live, **here)
    printed = await execute(up, wave.parent, [*follow, "--from-beginning", "--until-completed"], **here)
    assert len(EXPECTED & said(printed)) >= 0.8 * len(EXPECTED)
    await execute(up, wave.parent, file, **here)
    printed = await execute(up, wave.parent, subtitles, **here)
    assert printed.startswith("1\n00:00:0")
    assert len(EXPECTED & said(printed)) >= 0.8 * len(EXPECTED)


@pytest.mark.parametrize("way", ["--as-object", "--live"])
async def test_who_publishes_what_the_model_does_not_know_hears_of_it(up: Up, wave: Path, way: str) -> None:
    command = ["kaption", "publish", str(wave), "--stream", f"x{way}", way, "--wait", "--language", "de-AT"]
    env = environment(up, KAPTION_KAFKA=up.kafka, KAPTION_S3=up.s3)
    begun = time.monotonic()
    done = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    assert f"x{way}: unsupported_language: The model does not know" in done.stderr
    assert time.monotonic() - begun < soundfile.info(wave).duration, "a live file was played to its end"


async def test_a_file_goes_in_and_finals_come_out_by_kcat(up: Up, tmp_path: Path) -> None:
    tool = kcat()
    if tool is None:
        pytest.skip("kcat is not here and there is no apt to fetch it with")
    folder, env = tool
    settings = up.settings()
    store = Minio(
        settings.s3.removeprefix("http://"),
        settings.s3_access_key,
        settings.s3_secret_key.get_secret_value(),
        secure=False,
        region=settings.s3_region,
    )
    await asyncio.to_thread(store.fput_object, settings.media_bucket, "default/speech.flac", str(SPEECH))
    run = str(ULID())

    async def shell(name: str) -> str:
        command = f'PATH="{folder}:$PATH"\nset -euo pipefail\n{BLOCKS[name]}'
        return await execute(up, tmp_path, ["bash", "-c", command], RUN=run, **env)

    await shell("publish_object")
    async with asyncio.timeout(SECONDS):
        while "kaption.stream.completed" not in (await reading(up, tmp_path, run)):
            await asyncio.sleep(0.5)
    finals = [line for line in (await shell("read_finals")).splitlines() if run in line]
    assert len(EXPECTED & said("".join(finals))) >= 0.8 * len(EXPECTED)
    assert run not in await shell("read_dead_letters")


async def reading(up: Up, folder: Path, run: str) -> str:
    """The types of the run's records so far, by kcat's ``%h``."""
    found = kcat()
    assert found is not None
    tool, env = found
    command = [str(tool / "kcat"), "-C", "-b", up.kafka, "-t", "transcripts.final.v1", "-o", "beginning", "-e", "-q"]
    printed = await execute(up, folder, [*command, "-X", "isolation.level=read_committed", "-f", "%h\n"], **env)
    return "\n".join(line for line in printed.splitlines() if run in line)
