"""Uploads a local file under a tenant's prefix of the object store, for ``kaption publish``. It blocks; call it in a thread."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from minio.error import MinioException, S3Error

from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore
from kaption.domain.intake.bucket_events import place_of
from kaption_schemas.errors import LocalError, RefusedError, StoreError, StoreRefusedError
from kaption_schemas.records import MediaObject


class _Counted:
    """Hashes and counts a file while it is read."""

    def __init__(self, file: IO[bytes], moved: Callable[[int], None]) -> None:
        self._file = file
        self._moved = moved
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        self._moved(len(data))
        return data


def upload(settings: Settings, tenant: str, path: Path, name: str, moved: Callable[[int], None]) -> MediaObject:
    """Upload ``path`` as ``<the tenant's prefix><name>``; call ``moved`` with the bytes of each piece.

    Returns the stored object, pinned by version, ETag, size and SHA-256.

    Raises:
        StoreError: The store is away, or refuses the file (``StoreRefusedError``); the message says what to do.
        OSError: The file can't be read.
    """
    place = place_of(tenant, settings.media_bucket, settings.media_prefix)
    bucket, key = place.bucket, place.prefix + name
    store = ObjectStore(settings)
    try:
        with path.open("rb") as file:
            counted = _Counted(file, moved)
            store.ensure_bucket(bucket)
            store.put(bucket, key, counted)
        found = store.stat(MediaObject(bucket=bucket, key=key))
    except LocalError as error:
        raise OSError(error.number, str(error)) from None
    except RefusedError as error:  # the user may write and not read, or the object was replaced at once
        what = f"{bucket}/{key} can't be read back ({error.reason})"
        raise StoreRefusedError(f"{what}: check what KAPTION_S3_ACCESS_KEY may do") from None
    except StoreError as error:
        refused = isinstance(error.__cause__, MinioException)
        if not refused:
            remedy = "start it (`kaption up` starts one), or set KAPTION_S3"
        elif isinstance(error.__cause__, S3Error):
            remedy = "check KAPTION_S3_ACCESS_KEY, KAPTION_S3_SECRET_KEY and KAPTION_MEDIA_BUCKET"
        else:
            remedy = "try again later"
        kind = StoreRefusedError if refused else StoreError
        raise kind(f"{error}: {remedy}") from None
    finally:
        store.close()
    return MediaObject(
        bucket=bucket,
        key=key,
        version=found.version,
        etag=found.etag,
        size=found.size,
        sha256=counted.sha256.hexdigest(),
    )
