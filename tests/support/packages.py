"""Reads from pyproject.toml the packages that Kaption ships, so that a test holds for a new one too."""

import tomllib
from pathlib import Path
from typing import Final as Const

ROOT: Const = Path(__file__).parents[2]
PYPROJECT: Const = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Their paths from the root, such as ``streams/kaption_streams``.
PACKAGES: Const[tuple[str, ...]] = tuple(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
#: The folders that they are in.
FOLDERS: Const = tuple(package.partition("/")[0] for package in PACKAGES)
