"""Which encoder was chosen for some weights on this machine: measured once by a worker, remembered in the data folder."""

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
    """The pair that was chosen on this machine, and the milliseconds that an item of 6 s took with each."""

    name: str
    milliseconds: dict[str, float]


def remembered(file: Path, measure: Callable[[], Choice]) -> Choice:
    """The choice in ``file``, or what ``measure`` says, written there.

    Workers of one machine choose alike, and a restarted one as before, so that a replay decodes as the first time did.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    found = _read(file)
    if found is None:
        if file.exists() and _read(file) is None:
            file.unlink(missing_ok=True)  # it says nothing of use
        choice = measure()
        with tempfile.NamedTemporaryFile("w", dir=file.parent) as made:
            made.write(json.dumps(asdict(choice)))
            made.flush()
            with contextlib.suppress(FileExistsError):
                os.link(made.name, file)
        found = _read(file) or choice  # another worker may have been faster: then as it chose
    return found


def _read(file: Path) -> Choice | None:
    """The choice in ``file``, if it holds one."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Choice(**json.loads(file.read_text()))
    return None


def machine() -> str:
    """What decides which kernels run: the processor, since a data folder may be carried to another, and the runtimes' versions."""
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
    """Where the choice for the model's weights of ``digest`` on this machine is kept."""
    return settings.data / "encoders" / f"{settings.model}-{digest.removeprefix('sha256:')[:16]}-{machine()}.json"


def known_choices(settings: Settings) -> list[Choice]:
    """What was chosen for the model here so far, for whichever of its weights."""
    found = (
        _read(file)
        for file in sorted((settings.data / "encoders").glob(f"{settings.model}-{'?' * 16}-{machine()}.json"))
    )
    return [choice for choice in found if choice is not None]
