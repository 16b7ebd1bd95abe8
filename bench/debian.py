"""Unpacks Debian packages into a folder of .cache, without root: programs of the docs' examples."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache"


def unpacked(name: str, packages: tuple[str, ...]) -> Path | None:
    """Return the folder with unpacked ``packages``, fetched on the first call; None if that is impossible."""
    folder = CACHE / name
    if folder.is_dir():
        return folder
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    CACHE.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=CACHE))
    try:
        subprocess.run(["apt-get", "download", *packages], cwd=made, check=True, capture_output=True, timeout=120)
        for archive in sorted(made.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=made, check=True, capture_output=True, timeout=60)
            archive.unlink()
        made.rename(folder)  # whole or not at all, so that test processes may race
    except (subprocess.SubprocessError, OSError):
        shutil.rmtree(made, ignore_errors=True)
    return folder if folder.is_dir() else None


def kcat() -> tuple[Path, dict[str, str]] | None:
    """Return the folder with ``kcat`` and the environment that it needs; None without apt."""
    installed = shutil.which("kcat")
    if installed:
        return Path(installed).parent, {}
    folder = unpacked("kcat", ("kcat", "librdkafka1", "libyajl2"))
    if folder is None:
        return None
    libraries = folder / "usr" / "lib" / "x86_64-linux-gnu"
    return folder / "usr" / "bin", {
        "LD_LIBRARY_PATH": f"{libraries}{os.pathsep}{os.environ.get('LD_LIBRARY_PATH', '')}"
    }
