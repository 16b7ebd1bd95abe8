"""The object store as the pool sees it: byte ranges of normalised audio, and their deletion."""

import time
from typing import Final as Const
from urllib.parse import urlsplit

from minio import Minio
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from kaption.adapters.settings import Settings
from kaption_gpu.ports import ObjectUnavailableError
from kaption_schemas.records import DataRef

#: A store that is away for a moment must not cost audio: tries, and seconds before each further one.
_PAUSES: Const = (0.0, 0.5, 2.0, 5.0, 10.0)
#: Answers of the store that another try does not change.
_FINAL_CODES: Const = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "InvalidRange", "AccessDenied"})


class StoreObjects:
    """``kaption_gpu.ports.Objects`` on S3. Calls block; the client is shared between threads."""

    def __init__(self, settings: Settings) -> None:
        url = urlsplit(settings.s3)
        self._client = Minio(
            url.netloc,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.get_secret_value(),
            region=settings.s3_region,
            secure=url.scheme == "https",
        )

    def read(self, ref: DataRef) -> bytes:
        """The bytes that ``ref`` names. Raises ``ObjectUnavailableError``."""
        for pause in _PAUSES:
            time.sleep(pause)
            try:
                response = self._client.get_object(ref.bucket, ref.key, offset=ref.offset, length=ref.length)
                try:
                    body: bytes = response.read()
                finally:
                    response.close()
                    response.release_conn()
                return body
            except (MinioException, HTTPError, OSError) as error:
                failed = error
                if getattr(error, "code", None) in _FINAL_CODES:
                    break
        raise ObjectUnavailableError(type(failed).__name__) from failed

    def remove(self, bucket: str, key: str) -> None:
        """Delete a normalised object; one that is gone is fine. Raises ``ObjectUnavailableError``."""
        try:
            self._client.remove_object(bucket, key)
        except (MinioException, HTTPError, OSError) as error:
            raise ObjectUnavailableError(type(error).__name__) from error
