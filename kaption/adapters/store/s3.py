"""Calls the object store with the ``minio`` client: the few calls that Kaption needs, bounded in time and connections.

Calls block, from any thread; async callers use ``asyncio.to_thread``. ``RefusedError`` with its reason means that another
try would not help, ``StoreError`` that the store failed and another try may help, and ``LocalError`` that this machine
failed at its end of a transfer.
"""

import contextlib
import hashlib
import io
import time
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
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

from kaption.adapters.settings import Settings
from kaption.adapters.store.errors import CREDENTIALS, MISSING, but, failures, heads, local
from kaption.domain.records import RunKey
from kaption_schemas.errors import RefusedError, StoreError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, MediaObject

NORMALISED: Const = "normalised/"
#: The object that ``probe`` writes; it expires like an orphan.
_PROBE: Const = f"{NORMALISED}probe"
_NOTE: Const = "x-amz-meta-"
_PIECE: Const = 1 << 20
#: Bytes per part of an upload of unknown length; S3 allows 10,000 parts, so 160 GB.
_PART: Const = 16 << 20
_CONNECTIONS: Const = 10
_TIMEOUT: Const = urllib3.Timeout(connect=3.0, read=30.0)
#: Between two looks for an object that was not found.
_AGAIN_SECONDS: Const = 0.5


class Writer(Protocol):
    """The target of a download. An exception that it raises ends the download."""

    def write(self, data: bytes, /) -> int:
        """Write ``data``."""


class Reader(Protocol):
    """The source of an upload. An exception that it raises ends the upload, and no part of it stays."""

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes, empty at the end."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One version of an object: size in bytes, ETag without quotes, version (None in a bucket without versions)."""

    size: int
    etag: str
    version: str | None


def normalised_key(run: RunKey) -> str:
    """Return the key of a run's normalised audio in the work bucket."""
    return f"{NORMALISED}{run.tenant}/{run.stream}/{run.run}.pcm"


class ObjectStore:
    """S3 as ``settings`` name it."""

    def __init__(self, settings: Settings) -> None:
        url = urlsplit(settings.s3)
        self._settings = settings
        # Return the last answer rather than raise: it contains the store's own error.
        retries = urllib3.Retry(
            total=2, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504], raise_on_status=False
        )
        self._pool = urllib3.PoolManager(
            timeout=_TIMEOUT,
            maxsize=_CONNECTIONS,
            retries=retries,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(settings.s3_ca_file or certifi.where()),
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
        """Look up the object that ``media`` names, and check it against size, version and ETag.

        An object that the store does not find is looked for once more: a store under load, or one that replicates, may
        announce an object before it finds it.

        Raises:
            RefusedError: The object is missing, encrypted with a customer's key, or not as named.
            StoreError: The store failed.
        """
        try:
            return self._stat(media)
        except RefusedError as error:
            if error.reason is not Reason.OBJECT_MISSING:
                raise
        time.sleep(_AGAIN_SECONDS)
        return self._stat(media)

    def _stat(self, media: MediaObject) -> Stat:
        with heads(self._settings.s3), self._refusals(media):
            found = self._client.stat_object(media.bucket, media.key, version_id=media.version)
        stat = Stat(found.size or 0, str(found.etag or "").strip('"'), found.version_id or None)
        # "null" is the version of objects from before the bucket had versions.
        named = media.version if media.version != "null" else stat.version
        same = named in (None, stat.version) and media.size in (None, stat.size)
        if not same or (media.etag or stat.etag).strip('"') != stat.etag:
            raise RefusedError(Reason.OBJECT_CHANGED)
        return stat

    def fetch(self, media: MediaObject, into: Writer, stat: Stat | None = None) -> Stat:
        """Copy the object into ``into``, pinned to one version by version and ETag, and checked against its SHA-256.

        ``stat`` is a recent result of ``stat``, if the caller has one.

        Raises:
            RefusedError: As for ``stat``; or the object is too large, or has changed meanwhile.
            StoreError: The store is away, or the transfer ended early.
            LocalError: ``into`` can't be written to.
        """
        stat = stat or self.stat(media)
        if stat.size > self._settings.object_max_bytes:
            raise RefusedError(Reason.OBJECT_TOO_LARGE)
        headers: dict[str, Any] = {"If-Match": f'"{stat.etag}"'}
        digest, size = hashlib.sha256(), 0
        with self._refusals(media):
            response = self._client.get_object(
                media.bucket, media.key, version_id=stat.version, request_headers=headers
            )
            try:
                # As stored: undoing a Content-Encoding would be a second way to a decompression bomb.
                for piece in response.stream(_PIECE, decode_content=False):
                    size += len(piece)
                    if size > stat.size:
                        raise RefusedError(Reason.OBJECT_CHANGED)
                    digest.update(piece)
                    with local():
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
        """Read the bytes that ``ref`` names. Raises ``RefusedError`` (``audio_unavailable``) or ``StoreError``."""
        with failures(self._settings.s3):
            try:
                response = self._client.get_object(ref.bucket, ref.key, offset=ref.offset, length=ref.length)
            except S3Error as error:
                if error.code in MISSING or error.code == "InvalidRange":
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

    def put(self, bucket: str, key: str, reader: Reader, notes: dict[str, str] | None = None) -> None:
        """Store the bytes of ``reader``, of any length; the object appears whole, with ``notes``, or not at all.

        Raises ``StoreError``, and ``LocalError`` if ``reader`` can't be read.
        """
        source = cast("BinaryIO", _Source(reader))
        with failures(self._settings.s3):
            self._client.put_object(
                bucket, key, source, -1, part_size=_PART, num_parallel_uploads=1, metadata={**(notes or {})}
            )

    def notes(self, bucket: str, key: str) -> tuple[int, dict[str, str]] | None:
        """Return the size in bytes of an own object and the notes stored with it; None if it is missing.

        Raises ``StoreError``.
        """
        with heads(self._settings.s3):
            try:
                found = self._client.stat_object(bucket, key)
            except S3Error as error:
                if error.code in MISSING:
                    return None
                raise
        kept = {name.lower(): value for name, value in (found.metadata or {}).items()}
        return found.size or 0, {
            name.removeprefix(_NOTE): value for name, value in kept.items() if name.startswith(_NOTE)
        }

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object, if it is there. Raises ``StoreError``."""
        with failures(self._settings.s3):
            self._client.remove_object(bucket, key)

    def delete_normalised(self, run: RunKey) -> None:
        """Delete a run's normalised audio; the pool calls this when the run closes. Raises ``StoreError``."""
        self.delete(self._settings.work_bucket, normalised_key(run))

    def has_bucket(self, bucket: str) -> bool:
        """Whether ``bucket`` exists. Raises ``StoreError``."""
        with heads(self._settings.s3):
            return bool(self._client.bucket_exists(bucket))

    def ensure_bucket(self, bucket: str) -> None:
        """Create ``bucket`` unless it exists. Raises ``StoreError``."""
        if self.has_bucket(bucket):
            return
        with failures(self._settings.s3), but("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            self._client.make_bucket(bucket)

    def prepare_work(self) -> None:
        """Create the work bucket and let the store expire orphans in it, if it can; otherwise ``sweep`` does.

        Raises ``StoreError``.
        """
        bucket = self._settings.work_bucket
        self.ensure_bucket(bucket)
        expiry = Expiration(days=self._settings.work_expiry_days)
        rule = Rule(ENABLED, rule_filter=Filter(prefix=NORMALISED), rule_id="kaption-orphans", expiration=expiry)
        with failures(self._settings.s3), but("NotImplemented", "AccessDenied", "MethodNotAllowed"):
            self._client.set_bucket_lifecycle(bucket, LifecycleConfig([rule]))

    def probe(self) -> datetime:
        """Write a small object to the work bucket, as every file does; return the store's clock. Raises ``StoreError``.

        If this works, the store is not away, whatever it answers for one object.
        """
        bucket = self._settings.work_bucket
        with heads(self._settings.s3):
            self._client.put_object(bucket, _PROBE, io.BytesIO(b"kaption"), len(b"kaption"))
            written = self._client.stat_object(bucket, _PROBE).last_modified
        if written is None:
            raise StoreError(f"the object store at {self._settings.s3} does not say when an object was written")
        return written

    def sweep(self, now: datetime) -> int:
        """Delete normalised audio older than the expiry at ``now``, with time zone; return how many. Raises ``StoreError``.

        ``now`` is the store's clock (``probe``): by a clock ahead of it, audio in use would seem old.
        SeaweedFS accepts a lifecycle rule but does not apply it on one node without its maintenance worker.
        """
        bucket, before = self._settings.work_bucket, now - timedelta(days=self._settings.work_expiry_days)
        removed = 0
        with failures(self._settings.s3):
            for found in self._client.list_objects(bucket, prefix=NORMALISED, recursive=True):
                if found.last_modified is not None and found.last_modified < before:
                    self._client.remove_object(bucket, found.object_name)
                    removed += 1
        return removed

    @contextmanager
    def _refusals(self, media: MediaObject) -> Iterator[None]:
        """Turn answers about the object itself into refusals."""
        with failures(self._settings.s3):
            try:
                yield
            except S3Error as error:
                reason = self._reason(error, media)
                if reason is None:
                    raise
                raise RefusedError(reason) from None

    def _reason(self, error: S3Error, media: MediaObject) -> Reason | None:
        status = getattr(error.response, "status", 0)
        if error.code in MISSING or status == 404:
            return Reason.OBJECT_MISSING
        if error.code == "PreconditionFailed" or status == 412:
            return Reason.OBJECT_CHANGED
        if status == 400:
            return self._bad_request(media)
        # 403 is also the answer for a missing object to a user who may not list, unless the whole bucket is closed.
        if status == 403 and self._is_open(media.bucket):
            return Reason.OBJECT_MISSING
        return None

    def _bad_request(self, media: MediaObject) -> Reason | None:
        """Find the reason for a 400 to HEAD, which has no body: a customer's key (SSE-C), an invalid version id, or no fault
        of the object.
        """
        try:
            response = self._client.get_object(media.bucket, media.key, offset=0, length=1, version_id=media.version)
            response.close()
            response.release_conn()
        except S3Error as error:
            encrypted = "encryption" in str(error.message).lower()
            if error.code in CREDENTIALS:
                return None
            if error.code in MISSING or (media.version is not None and not encrypted):
                return Reason.OBJECT_MISSING
            return Reason.OBJECT_ENCRYPTED
        return None

    def _is_open(self, bucket: str) -> bool:
        with contextlib.suppress(S3Error):
            return bool(self._client.bucket_exists(bucket))
        return False


class _Source:
    """The source of an upload; its failures are this machine's."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, size: int = -1, /) -> bytes:
        with local():
            return self._reader.read(size)
