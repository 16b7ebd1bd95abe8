"""A plain client of the object store, as an uploader has it."""

import io
from typing import Any

from minio import Minio

from kaption.adapters.settings import Settings


def client(settings: Settings) -> Minio:
    """The ``minio`` client, without anything of Kaption's."""
    address = settings.s3.removeprefix("http://")
    secret = settings.s3_secret_key.get_secret_value()
    return Minio(address, access_key=settings.s3_access_key, secret_key=secret, secure=False, region="us-east-1")


def upload(settings: Settings, key: str, body: bytes) -> Any:
    """Store an object in the media bucket; the answer has its ``etag`` and ``version_id``."""
    return client(settings).put_object(settings.media_bucket, key, io.BytesIO(body), len(body))
