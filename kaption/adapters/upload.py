"""Putting a local file into a tenant's place in the object store, for ``kaption publish``. Blocks; call it in a thread."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException

from kaption.adapters.settings import Settings

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0


class UploadError(Exception):
    """The store did not take the file; the message says what to look at. ``refused`` when it answered."""

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An object as the store has it: what pins it for whoever reads it later. ``sha256`` in hex, ``size`` in bytes."""

    bucket: str
    key: str
    version: str | None
    etag: str | None
    size: int
    sha256: str


class _Counted:
    """A file that is hashed and counted while it is read."""

    def __init__(self, file: IO[bytes], moved: Callable[[int], None]) -> None:
        self._file = file
        self._moved = moved
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        self._moved(len(data))
        return data


def upload(settings: Settings, tenant: str, path: Path, name: str, moved: Callable[[int], None]) -> Uploaded:
    """Upload ``path`` as ``<the tenant's prefix><name>``; ``moved`` hears of each piece's bytes.

    Raises:
        UploadError: The store is away, or refuses.
        OSError: The file can't be read.
    """
    url = urlsplit(settings.s3)
    client = Minio(
        endpoint=url.netloc,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=url.scheme == "https",
        region=settings.s3_region,
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS), retries=urllib3.Retry(1)
        ),
    )
    key = settings.media_prefix.format(tenant=tenant) + name
    size = path.stat().st_size
    with path.open("rb") as file:
        counted = _Counted(file, moved)
        try:
            if not client.bucket_exists(bucket_name=settings.media_bucket):
                client.make_bucket(bucket_name=settings.media_bucket)
            body = cast(BinaryIO, counted)  # read is all that the client calls
            done = client.put_object(bucket_name=settings.media_bucket, object_name=key, data=body, length=size)
        except MinioException as error:
            what = (
                f"the object store at {settings.s3} refuses the upload ({getattr(error, 'code', type(error).__name__)})"
            )
            raise UploadError(
                f"{what}: check KAPTION_S3_ACCESS_KEY, KAPTION_S3_SECRET_KEY and KAPTION_MEDIA_BUCKET", refused=True
            ) from None
        except urllib3.exceptions.HTTPError:
            raise UploadError(
                f"no object store answers at {settings.s3}: start it (`kaption up` starts one), or set KAPTION_S3",
                refused=False,
            ) from None
    return Uploaded(settings.media_bucket, key, done.version_id, done.etag, size, counted.sha256.hexdigest())
