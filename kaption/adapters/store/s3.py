"""The object store, by the ``minio`` client: the few calls that Kaption needs, bounded in time and connections.

Calls block and may be made from several threads; async callers use ``asyncio.to_thread``. What another try can't mend is
a ``RefusedError`` with its reason; what the store does wrong is ``StoreError``, and worth another try; what this machine does
wrong while it reads or writes the other end of a transfer is ``LocalError``.
"""

import contextlib
import hashlib
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Protocol, cast
from typing import Final as Const
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from urllib3.exceptions import HTTPError, MaxRetryError

from kaption.adapters.settings import Settings
from kaption.domain.records import RunKey
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, MediaObject

NORMALISED: Const = "normalised/"
#: What ``probe`` writes; it goes like an orphan.
_PROBE: Const = f"{NORMALISED}probe"
_NOTE: Const = "x-amz-meta-"
_PIECE: Const = 1 << 20
#: Bytes of one part of an upload whose length is not known; S3 allows 10,000 parts, so 160 GB.
_PART: Const = 16 << 20
_CONNECTIONS: Const = 10
_TIMEOUT: Const = urllib3.Timeout(connect=3.0, read=30.0)
_MISSING: Const = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "MethodNotAllowed", "ResourceNotFound"})
#: Answers that say something of whoever asks, some of them with the status 400.
_CREDENTIALS: Const = frozenset({
    "AccessDenied", "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestExpired",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
})  # fmt: skip
#: Between two looks for an object that was not found.
_AGAIN_SECONDS: Const = 0.5


class StoreError(Exception):
    """The store is away or slow, or answers what it should not; the message names what and no secret."""


class StoreRefusedError(StoreError):
    """The store refuses the credentials, or does not let them do what the service must."""


class LocalError(Exception):
    """This machine's end of a transfer failed, a full disk for one. ``number`` is the ``errno``."""

    def __init__(self, error: OSError) -> None:
        self.number = error.errno or 0
        super().__init__(os.strerror(self.number) if self.number else type(error).__name__)


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
        # The last answer is wanted, not an error that keeps it back: it says what the store said.
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
        """The object that ``media`` names, checked against its size, version and ETag.

        An object that the store does not find is looked for once more: a store under load, or one that replicates, may
        announce an object before it finds it.

        Raises:
            RefusedError: It is missing, encrypted with another's key, or not as named.
            StoreError: The store can't say.
        """
        try:
            return self._stat(media)
        except RefusedError as error:
            if error.reason is not Reason.OBJECT_MISSING:
                raise
        time.sleep(_AGAIN_SECONDS)
        return self._stat(media)

    def _stat(self, media: MediaObject) -> Stat:
        with self._heads(), self._refusals(media):
            found = self._client.stat_object(media.bucket, media.key, version_id=media.version)
        stat = Stat(found.size or 0, str(found.etag or "").strip('"'), found.version_id or None)
        # "null" is the version of what a bucket held before it had versions.
        named = media.version if media.version != "null" else stat.version
        same = named in (None, stat.version) and media.size in (None, stat.size)
        if not same or (media.etag or stat.etag).strip('"') != stat.etag:
            raise RefusedError(Reason.OBJECT_CHANGED)
        return stat

    def fetch(self, media: MediaObject, into: Writer, stat: Stat | None = None) -> Stat:
        """Copy the object into ``into``, pinned to one version by version and ETag, and checked against its SHA-256.

        ``stat`` is what ``stat`` said of it just now, where the caller has asked.

        Raises:
            RefusedError: As ``stat``; it is too large; it changed meanwhile.
            StoreError: The store is away, or the transfer broke off.
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
                # As stored: a Content-Encoding must not be undone, it would be a second way to a bomb.
                for piece in response.stream(_PIECE, decode_content=False):
                    size += len(piece)
                    if size > stat.size:
                        raise RefusedError(Reason.OBJECT_CHANGED)
                    digest.update(piece)
                    with _local():
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

    def put(self, bucket: str, key: str, reader: Reader, notes: dict[str, str] | None = None) -> None:
        """Store what ``reader`` gives, of any length; the object appears whole or not at all, ``notes`` with it.

        Raises ``StoreError``, and ``LocalError`` where ``reader`` can't be read.
        """
        source = cast("BinaryIO", _Source(reader))
        with self._failures():
            self._client.put_object(
                bucket, key, source, -1, part_size=_PART, num_parallel_uploads=1, metadata={**(notes or {})}
            )

    def notes(self, bucket: str, key: str) -> tuple[int, dict[str, str]] | None:
        """How many bytes an object of ours has, and the notes it was stored with; None where it is not. Raises ``StoreError``."""
        with self._heads():
            try:
                found = self._client.stat_object(bucket, key)
            except S3Error as error:
                if error.code in _MISSING:
                    return None
                raise
        kept = {name.lower(): value for name, value in (found.metadata or {}).items()}
        return found.size or 0, {
            name.removeprefix(_NOTE): value for name, value in kept.items() if name.startswith(_NOTE)
        }

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object; one that is gone is fine. Raises ``StoreError``."""
        with self._failures():
            self._client.remove_object(bucket, key)

    def delete_normalised(self, run: RunKey) -> None:
        """Delete a run's normalised audio; the pool does when the run closes. Raises ``StoreError``."""
        self.delete(self._settings.work_bucket, normalised_key(run))

    def has_bucket(self, bucket: str) -> bool:
        """Whether ``bucket`` is there. Raises ``StoreError``."""
        with self._heads():
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

    def probe(self) -> datetime:
        """Write a small object to the work bucket, as every file needs; the store's clock then. Raises ``StoreError``.

        Where this works, the store is not away, whatever it answers for one object.
        """
        bucket = self._settings.work_bucket
        with self._heads():
            self._client.put_object(bucket, _PROBE, io.BytesIO(b"kaption"), len(b"kaption"))
            written = self._client.stat_object(bucket, _PROBE).last_modified
        if written is None:
            raise StoreError(f"the object store at {self._settings.s3} does not say when an object was written")
        return written

    def sweep(self, now: datetime) -> int:
        """Delete normalised audio older than the expiry at ``now`` (aware); returns how many. Raises ``StoreError``.

        ``now`` is the store's clock (``probe``): by one that is ahead of it, audio in use would be old.
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
        store = f"the object store at {self._settings.s3}"
        try:
            yield
        except S3Error as error:
            refused = error.code in _CREDENTIALS or getattr(error.response, "status", 0) in (401, 403)
            kind = StoreRefusedError if refused else StoreError
            raise kind(f"{store} answered {error.code}") from error
        except ServerError as error:
            raise StoreError(f"{store} answered {error.status_code}") from error
        except InvalidResponseError as error:
            raise StoreError(f"{store} answered {error._code} without saying why") from error
        except MinioException as error:
            raise StoreError(f"{store} answered what is no S3 ({type(error).__name__})") from error
        except (ParseError, UnicodeDecodeError) as error:  # minio reads an error's body as XML, whatever it is
            raise StoreError(f"{store} answered what is no S3 ({type(error).__name__})") from error
        except (HTTPError, OSError) as error:
            why = error.reason if isinstance(error, MaxRetryError) else error
            raise StoreError(f"no object store answers at {self._settings.s3} ({type(why).__name__})") from error

    @contextmanager
    def _heads(self) -> Iterator[None]:
        """For HEAD: minio trips over an answer of 409, and over a date that is none."""
        with self._failures():
            try:
                yield
            except ValueError as error:
                raise StoreError(f"the object store at {self._settings.s3} answered what is no S3 to HEAD") from error

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

    def _bad_request(self, media: MediaObject) -> Reason | None:
        """400 to HEAD has no body that says why: another's key (SSE-C), a version id that is none, or nothing of the object."""
        try:
            response = self._client.get_object(media.bucket, media.key, offset=0, length=1, version_id=media.version)
            response.close()
            response.release_conn()
        except S3Error as error:
            encrypted = "encryption" in str(error.message).lower()
            if error.code in _CREDENTIALS:
                return None
            if error.code in _MISSING or (media.version is not None and not encrypted):
                return Reason.OBJECT_MISSING
            return Reason.OBJECT_ENCRYPTED
        return None

    def _is_open(self, bucket: str) -> bool:
        with contextlib.suppress(S3Error):
            return bool(self._client.bucket_exists(bucket))
        return False


@contextmanager
def _local() -> Iterator[None]:
    """Tell a fault of this machine from one of the store, whose connection raises ``OSError`` too."""
    try:
        yield
    except OSError as error:
        raise LocalError(error) from error


class _Source:
    """What an upload is read from, whose failures are this machine's."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, size: int = -1, /) -> bytes:
        with _local():
            return self._reader.read(size)


@contextmanager
def _but(*codes: str) -> Iterator[Any]:
    """Answers of these codes are fine."""
    try:
        yield
    except S3Error as error:
        if error.code not in codes:
            raise
