"""The decoding children and what forks them: apart, bounded, replaced when lost; and what they make of damaged files."""

import io
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from kaption.adapters.media.containers import find
from kaption.adapters.media.files import Decoding, MediaDecoder, MediaFormat
from kaption.adapters.settings import Settings
from kaption_schemas.errors import ProcessError, RefusedError
from kaption_schemas.reasons import Reason
from tests.support.fuzzing import mutated
from tests.support.media import encode, film, tone


@pytest.fixture
def decoder() -> Iterator[MediaDecoder]:
    with closing(MediaDecoder(Settings())) as decoder:
        yield decoder


@contextmanager
def opened(body: bytes) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        file.write(body)
        yield cast("BinaryIO", file)


@pytest.fixture
def minutes() -> Iterator[BinaryIO]:
    """More than fits the pipe: whoever decodes it waits for whoever reads."""
    with opened(encode(tone(120, 16_000), 16_000)) as file:
        yield file


def forks(decoder: MediaDecoder) -> int:
    assert decoder.pid is not None
    return decoder.pid


def children(decoder: MediaDecoder) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{decoder.pid}/task/{decoder.pid}/children").read_text().split()]


def rest_of(decoding: Decoding) -> int:
    samples = 0
    while block := decoding.read(50_000):
        samples += len(block) // decoding.format.width
    return samples


def rest(decoding: Decoding) -> int:
    samples = rest_of(decoding)
    assert decoding.finish() == samples
    return samples


def test_a_child_holds_its_own_file_and_nothing_of_its_siblings(
    decoder: MediaDecoder, minutes: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAPTION_S3_SECRET_KEY", "a secret")
    with ExitStack() as stack:
        for _ in range(3):
            file = stack.enter_context(opened(encode(tone(30), 16_000)))
            stack.enter_context(decoder.decode(file, mix=True))
        pids = children(decoder)
        assert len(pids) == 3
        for pid in pids:
            if os.geteuid() == 0:  # it is hidden from everybody else
                held = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
                assert sum(name.startswith("pipe:") for name in held) == 2, held
                assert len([name for name in held if name != "/dev/null"]) == 3, held
                assert Path(f"/proc/{pid}/environ").read_bytes() == b""
            limits = Path(f"/proc/{pid}/limits").read_text()
            for limit in (
                r"address space\s+1073741824",
                r"cpu time\s+900",
                r"open files\s+16",
                r"file size\s+0",
                r"core file size\s+0",
            ):
                assert re.search(limit, limits), limits
    assert children(decoder) == []


def test_decodes_at_once_do_not_mix(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    with (
        opened(encode(tone(1, 8000, 2), 8000)) as other,
        decoder.decode(minutes, mix=True) as long,
        decoder.decode(other, mix=False) as short,
    ):
        assert (long.format, short.format) == (MediaFormat(16_000, 1), MediaFormat(8000, 2))
        assert (rest(short), rest(long)) == (8000, 120 * 16_000)


def test_a_decode_that_is_left_ends_its_child(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    with decoder.decode(minutes, mix=True) as decoding:
        decoding.read(1000)
        (pid,) = children(decoder)
    assert not Path(f"/proc/{pid}").exists()


def test_a_slow_reader_is_not_the_files_fault(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    """A store takes hours of audio at its own pace, and the child waits for it."""
    with decoder.decode(minutes, mix=True, wall_seconds=2) as decoding:
        first = len(decoding.read(50_000)) // decoding.format.width
        time.sleep(2.5)  # longer than the child may be waited for
        assert first + rest_of(decoding) == decoding.finish() == 120 * 16_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_the_service_refuses_no_file(decoder: MediaDecoder, minutes: BinaryIO, number: int) -> None:
    """A service manager, or a terminal, may send it to all processes: what the file is worth is not for it to say."""
    with decoder.decode(minutes, mix=True) as decoding:
        for pid in (*children(decoder), forks(decoder)):
            os.kill(pid, number)
        assert rest(decoding) == 120 * 16_000


def test_what_forks_children_is_started_again(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    with decoder.decode(minutes, mix=True):
        before = forks(decoder)
    os.kill(before, signal.SIGKILL)
    with decoder.decode(minutes, mix=True) as decoding:
        assert rest(decoding) == 120 * 16_000
    assert forks(decoder) != before


@pytest.mark.parametrize(
    ("crash", "reason"), [(signal.SIGSEGV, Reason.NOT_MEDIA), (signal.SIGABRT, Reason.DECODE_LIMIT)]
)
def test_after_a_crash_nothing_is_forked_from_the_same_process(
    decoder: MediaDecoder, minutes: BinaryIO, crash: int, reason: Reason
) -> None:
    """Its children have the layout of their addresses in common: a second guess must not be at the same."""
    with decoder.decode(minutes, mix=True) as decoding:
        before = forks(decoder)
        (pid,) = children(decoder)
        os.kill(pid, crash)
        with pytest.raises(RefusedError) as caught:
            rest(decoding)
        assert caught.value.reason is reason
    with decoder.decode(minutes, mix=True) as decoding:
        assert forks(decoder) != before
        assert rest(decoding) == 120 * 16_000


def test_a_child_that_is_lost_says_nothing_of_its_file(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    with decoder.decode(minutes, mix=True) as decoding:
        os.kill(forks(decoder), signal.SIGKILL)
        with pytest.raises(ProcessError):
            rest(decoding)


def test_a_child_that_gets_no_limits_says_nothing_of_its_file(minutes: BinaryIO) -> None:
    bounded = Settings(decode_memory_mb=1 << 44)  # more bytes than 64 bits can say
    with (
        closing(MediaDecoder(bounded)) as decoder,
        pytest.raises(ProcessError),
        decoder.decode(minutes, mix=True),
    ):
        pass


def test_one_that_is_closed_starts_nothing(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    decoder.close()
    with pytest.raises(ProcessError), decoder.decode(minutes, mix=True):
        pass
    assert decoder.pid is None


def test_nothing_outlives_a_service_that_is_killed(minutes: BinaryIO) -> None:
    script = """
import os, sys
from kaption.adapters.media.files import MediaDecoder
from kaption.adapters.settings import Settings
decoder = MediaDecoder(Settings())
with decoder.decode(os.fdopen(int(sys.argv[1]), "rb"), mix=True):
    print(decoder.pid, open(f"/proc/{decoder.pid}/task/{decoder.pid}/children").read(), flush=True)
    sys.stdin.read()
"""
    argv = [sys.executable, "-c", script, str(minutes.fileno())]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, pass_fds=(minutes.fileno(),), text=True) as service:
        assert service.stdout is not None
        pids = service.stdout.readline().split()
        assert len(pids) == 2
        service.kill()
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() and _state(pid) != "Z" for pid in pids):
        assert time.monotonic() < until, pids
        time.sleep(0.05)


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


SEEDS = [
    (encode(tone(0.5), 16_000), 50), (encode(tone(1, 16_000), 16_000, "flac", "flac"), 50), (encode(tone(1, 48_000), 48_000, "ogg", "libopus"), 50),
    (encode(tone(1, 48_000), 48_000, "mp4", "aac"), 50), (encode(tone(1, 48_000), 48_000, "webm", "libopus"), 50),
    (encode(tone(1, 16_000), 16_000, "mp3", "libmp3lame"), 30), (encode(tone(1), 16_000, "caf", "pcm_s16be"), 30),
    (encode(tone(1, 48_000), 48_000, "mpegts", "aac"), 30), (film("matroska", [tone(1, 48_000)] * 2, picture="mpeg4"), 30),
]  # fmt: skip


@pytest.mark.parametrize(("body", "tries"), SEEDS, ids=lambda value: sniffed(value) if isinstance(value, bytes) else "")
def test_a_damaged_file_is_decoded_or_refused_with_a_reason_that_is_its_own(
    body: bytes, tries: int, decoder: MediaDecoder
) -> None:
    dice, refusals = random.Random(0), list[RefusedError]()
    for _ in range(tries):
        with opened(mutated(body, dice)) as file:
            try:
                with decoder.decode(file, mix=True) as decoding:
                    rest(decoding)
            except RefusedError as error:
                refusals.append(error)
    # No limit is reached: a child that fell over its input says so.
    assert [error.detail for error in refusals if error.reason is Reason.DECODE_LIMIT or not error.detail] == []


def sniffed(body: bytes) -> str:
    found = find(io.BytesIO(body), len(body))
    return "none" if found is None else found.kind
