"""Distinguishes faults of the object store from faults of this machine, as exceptions of two kinds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final as Const
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError

from kaption_schemas.errors import LocalError, StoreError, StoreRefusedError

#: Error codes of an object that is missing.
MISSING: Const = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "MethodNotAllowed", "ResourceNotFound"})
#: Error codes about the caller's credentials; some come with status 400.
CREDENTIALS: Const = frozenset({
    "AccessDenied", "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestExpired",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
})  # fmt: skip


@contextmanager
def failures(url: str) -> Iterator[None]:
    """Turn faults of the store at ``url`` into ``StoreError``."""
    store = f"the object store at {url}"
    try:
        yield
    except S3Error as error:
        refused = error.code in CREDENTIALS or getattr(error.response, "status", 0) in (401, 403)
        kind = StoreRefusedError if refused else StoreError
        raise kind(f"{store} answered {error.code}") from error
    except ServerError as error:
        raise StoreError(f"{store} answered {error.status_code}") from error
    except InvalidResponseError as error:
        raise StoreError(f"{store} answered {error._code} without saying why") from error
    except MinioException as error:
        raise StoreError(f"{store} answered what is no S3 ({type(error).__name__})") from error
    except (ParseError, UnicodeDecodeError) as error:  # minio parses any error's body as XML
        raise StoreError(f"{store} answered what is no S3 ({type(error).__name__})") from error
    except (HTTPError, OSError) as error:
        why = error.reason if isinstance(error, MaxRetryError) else error
        raise StoreError(f"no object store answers at {url} ({type(why).__name__})") from error


@contextmanager
def heads(url: str) -> Iterator[None]:
    """Catch what minio raises for a HEAD answered with 409 or with an invalid date."""
    with failures(url):
        try:
            yield
        except ValueError as error:
            raise StoreError(f"the object store at {url} answered what is no S3 to HEAD") from error


@contextmanager
def local() -> Iterator[None]:
    """Mark an ``OSError`` as this machine's fault, since the store's connection raises ``OSError`` too."""
    try:
        yield
    except OSError as error:
        raise LocalError(error) from error


@contextmanager
def but(*codes: str) -> Iterator[None]:
    """Ignore errors with these codes."""
    try:
        yield
    except S3Error as error:
        if error.code not in codes:
            raise
