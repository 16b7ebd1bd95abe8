"""Remembers in the data folder which encoder a worker measured as the fastest for some weights on this machine."""

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final as Const

from kaption.adapters.settings import Settings

_RUNTIMES: Const = ("ctranslate2", "openvino")


@dataclass(frozen=True, slots=True)
class Choice:
    """The pair chosen on this machine, and the milliseconds of an item of 6 s with each pair."""

    name: str
    milliseconds: dict[str, float]


def remembered(file: Path, measure: Callable[[], Choice]) -> Choice:
    """Return the choice in ``file``; without one, call ``measure`` and write its choice there.

    So all workers of a machine choose alike, and a restarted worker as before: a replay decodes like the first time.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    found = _read(file)
    if found is None:
        if file.exists() and _read(file) is None:
            file.unlink(missing_ok=True)  # unreadable
        choice = measure()
        with tempfile.NamedTemporaryFile("w", dir=file.parent) as made:
            made.write(json.dumps(asdict(choice)))
            made.flush()
            with contextlib.suppress(FileExistsError):
                os.link(made.name, file)
        found = _read(file) or choice  # another worker may have written its choice first: use that
    return found


def _read(file: Path) -> Choice | None:
    """Read the choice in ``file``, if it holds one."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Choice(**json.loads(file.read_text()))
    return None


def machine() -> str:
    """Name what decides which kernels run: the processor, since a data folder may move, and the runtimes' versions."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        decides = sorted({line for line in lines if line.startswith(("model name", "flags"))})
        decides += [f"{runtime} {_version(runtime)}" for runtime in _RUNTIMES]
        return hashlib.sha256("\n".join(decides).encode()).hexdigest()[:16]
    return platform.machine()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"


def choice_file(settings: Settings, digest: str) -> Path:
    """Return the path of this machine's choice for the model's weights of ``digest``."""
    return settings.data / "encoders" / f"{settings.model}-{digest.removeprefix('sha256:')[:16]}-{machine()}.json"


def known_choices(settings: Settings) -> list[Choice]:
    """Return all choices for the model on this machine, for any of its weights."""
    found = (
        _read(file)
        for file in sorted((settings.data / "encoders").glob(f"{settings.model}-{'?' * 16}-{machine()}.json"))
    )
    return [choice for choice in found if choice is not None]
