"""The object store, by the ``minio`` client: the few calls that Kaption needs, bounded in time and connections.

Calls block and may be made from several threads; async callers use ``asyncio.to_thread``. What another try can't mend is
a ``RefusedError`` with its reason; everything else is ``StoreError``, and worth another try.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Protocol, cast
from typing import Final as Const
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import MinioException, S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from urllib3.exceptions import HTTPError

from kaption.adapters.settings import Settings
from kaption.domain.events import RefusedError
from kaption.domain.outputs import RunKey
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, MediaObject

NORMALISED: Const = "normalised/"
_PIECE: Const = 1 << 20
#: Bytes of one part of an upload whose length is not known; S3 allows 10,000 parts, so 160 GB.
_PART: Const = 16 << 20
_CONNECTIONS: Const = 10
_TIMEOUT: Const = urllib3.Timeout(connect=3.0, read=30.0)
_MISSING: Const = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "MethodNotAllowed", "ResourceNotFound"})

_CREDENTIALS: Const = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


class StoreError(Exception):
    """The store is away or slow, or answers what it should not; the message names what and no secret."""


class StoreRefusedError(StoreError):
    """The store refuses the credentials, or does not let them do what the service must."""


class Writer(Protocol):
    """What a download is written to. An exception it raises ends the download."""

    def write(self, data: bytes, /) -> int:
        """Take ``data``."""


class Reader(Protocol):
    """What an upload is read from. An exception it raises ends the upload, and nothing of it stays."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, empty at the end."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One version of an object: bytes, ETag without quotes, version (None in a bucket without versions)."""

    size: int
    etag: str
    version: str | None


def normalised_key(run: RunKey) -> str:
    """Where a run's normalised audio is in the work bucket."""
    return f"{NORMALISED}{run.tenant}/{run.stream}/{run.run}.pcm"


class ObjectStore:
    """S3 as ``settings`` name it."""

    def __init__(self, settings: Settings) -> None:
        url = urlsplit(settings.s3)
        self._settings = settings
        retries = urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
        self._pool = urllib3.PoolManager(
            timeout=_TIMEOUT, maxsize=_CONNECTIONS, retries=retries, cert_reqs="CERT_REQUIRED", ca_certs=certifi.where()
        )
        self._client = Minio(
            url.netloc,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.get_secret_value(),
            region=settings.s3_region,
            secure=url.scheme == "https",
            http_client=self._pool,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def stat(self, media: MediaObject) -> Stat:
        """The object that ``media`` names, checked against its size and ETag.

        Raises:
            RefusedError: It is missing, encrypted with another's key, or not as named.
            StoreError: The store can't say.
        """
        with self._refusals(media):
            found = self._client.stat_object(media.bucket, media.key, version_id=media.version)
        stat = Stat(found.size or 0, str(found.etag or "").strip('"'), found.version_id or None)
        if media.size not in (None, stat.size) or (media.etag or stat.etag).strip('"') != stat.etag:
            raise RefusedError(Reason.OBJECT_CHANGED)
        return stat

    def fetch(self, media: MediaObject, into: Writer) -> Stat:
        """Copy the object into ``into``, pinned to one version by version and ETag, and checked against its SHA-256.

        Raises:
            RefusedError: As ``stat``; it is too large; it changed meanwhile.
            StoreError: The store is away, or the transfer broke off.
        """
        stat = self.stat(media)
        if stat.size > self._settings.object_max_bytes:
            raise RefusedError(Reason.OBJECT_TOO_LARGE)
        headers: dict[str, Any] = {"If-Match": f'"{stat.etag}"'}
        digest, size = hashlib.sha256(), 0
        with self._refusals(media):
            response = self._client.get_object(
                media.bucket, media.key, version_id=stat.version, request_headers=headers
            )
            try:
                # As stored: a Content-Encoding must not be undone, it would be a second way to a bomb.
                for piece in response.stream(_PIECE, decode_content=False):
                    size += len(piece)
                    if size > stat.size:
                        raise RefusedError(Reason.OBJECT_CHANGED)
                    digest.update(piece)
                    into.write(piece)
            finally:
                response.close()
                response.release_conn()
        if size < stat.size:
            raise StoreError("a transfer ended early")
        if media.sha256 not in (None, digest.hexdigest()):
            raise RefusedError(Reason.OBJECT_CHANGED)
        return stat

    def read(self, ref: DataRef) -> bytes:
        """The bytes that ``ref`` names. Raises ``RefusedError`` (``audio_unavailable``) or ``StoreError``."""
        with self._failures():
            try:
                response = self._client.get_object(ref.bucket, ref.key, offset=ref.offset, length=ref.length)
            except S3Error as error:
                if error.code in _MISSING or error.code == "InvalidRange":
                    raise RefusedError(Reason.AUDIO_UNAVAILABLE) from None
                raise
            try:
                body: bytes = response.read()
            finally:
                response.close()
                response.release_conn()
        if len(body) < ref.length:
            raise RefusedError(Reason.AUDIO_UNAVAILABLE)
        return body

    def put(self, bucket: str, key: str, reader: Reader) -> None:
        """Store what ``reader`` gives, of any length; the object appears whole or not at all. Raises ``StoreError``."""
        with self._failures():
            self._client.put_object(bucket, key, cast("BinaryIO", reader), -1, part_size=_PART, num_parallel_uploads=1)

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object; one that is gone is fine. Raises ``StoreError``."""
        with self._failures():
            self._client.remove_object(bucket, key)

    def delete_normalised(self, run: RunKey) -> None:
        """Delete a run's normalised audio; the pool does when the run closes. Raises ``StoreError``."""
        self.delete(self._settings.work_bucket, normalised_key(run))

    def has_bucket(self, bucket: str) -> bool:
        """Whether ``bucket`` is there. Raises ``StoreError``."""
        with self._failures():
            return bool(self._client.bucket_exists(bucket))

    def ensure_bucket(self, bucket: str) -> None:
        """Create ``bucket`` unless it is there. Raises ``StoreError``."""
        if self.has_bucket(bucket):
            return
        with self._failures(), _but("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            self._client.make_bucket(bucket)

    def prepare_work(self) -> None:
        """Create the work bucket and let the store expire orphans in it, where it can (else ``sweep`` does).

        Raises ``StoreError``.
        """
        bucket = self._settings.work_bucket
        self.ensure_bucket(bucket)
        expiry = Expiration(days=self._settings.work_expiry_days)
        rule = Rule(ENABLED, rule_filter=Filter(prefix=NORMALISED), rule_id="kaption-orphans", expiration=expiry)
        with self._failures(), _but("NotImplemented", "AccessDenied", "MethodNotAllowed"):
            self._client.set_bucket_lifecycle(bucket, LifecycleConfig([rule]))

    def sweep(self, now: datetime) -> int:
        """Delete normalised audio older than the expiry at ``now`` (aware); returns how many. Raises ``StoreError``.

        SeaweedFS takes a lifecycle rule and, on one node without its maintenance worker, does not apply it.
        """
        bucket, before = self._settings.work_bucket, now - timedelta(days=self._settings.work_expiry_days)
        removed = 0
        with self._failures():
            for found in self._client.list_objects(bucket, prefix=NORMALISED, recursive=True):
                if found.last_modified is not None and found.last_modified < before:
                    self._client.remove_object(bucket, found.object_name)
                    removed += 1
        return removed

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            refused = error.code in _CREDENTIALS or getattr(error.response, "status", 0) in (401, 403)
            kind = StoreRefusedError if refused else StoreError
            raise kind(f"the object store at {self._settings.s3} answered {error.code}") from error
        except (MinioException, HTTPError, OSError) as error:
            raise StoreError(f"no object store answers at {self._settings.s3} ({type(error).__name__})") from error

    @contextmanager
    def _refusals(self, media: MediaObject) -> Iterator[None]:
        """Answers that say something of the object itself, as refusals."""
        with self._failures():
            try:
                yield
            except S3Error as error:
                reason = self._reason(error, media)
                if reason is None:
                    raise
                raise RefusedError(reason) from None

    def _reason(self, error: S3Error, media: MediaObject) -> Reason | None:
        status = getattr(error.response, "status", 0)
        if error.code in _MISSING or status == 404:
            return Reason.OBJECT_MISSING
        if error.code == "PreconditionFailed" or status == 412:
            return Reason.OBJECT_CHANGED
        if status == 400:
            return self._bad_request(media)
        # 403 is also what a store says of a missing object to one who may not list; not if the bucket is closed to us.
        if status == 403 and self._is_open(media.bucket):
            return Reason.OBJECT_MISSING
        return None

    def _bad_request(self, media: MediaObject) -> Reason:
        """400 to HEAD has no body that says why: another's key (SSE-C), or a version id that is none."""
        try:
            response = self._client.get_object(media.bucket, media.key, offset=0, length=1, version_id=media.version)
            response.close()
            response.release_conn()
        except S3Error as error:
            encrypted = "encryption" in str(error.message).lower()
            if error.code in _MISSING or (media.version is not None and not encrypted):
                return Reason.OBJECT_MISSING
        return Reason.OBJECT_ENCRYPTED

    def _is_open(self, bucket: str) -> bool:
        with contextlib.suppress(S3Error):
            return bool(self._client.bucket_exists(bucket))
        return False


@contextmanager
def _but(*codes: str) -> Iterator[Any]:
    """Answers of these codes are fine."""
    try:
        yield
    except S3Error as error:
        if error.code not in codes:
            raise
