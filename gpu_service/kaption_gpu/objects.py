"""The object store as the pool sees it: byte ranges of normalised audio, and their deletion."""

from kaption.adapters.s3 import ObjectStore, StoreError
from kaption.domain.events import RefusedError
from kaption_gpu.ports import ObjectUnavailableError, StoreAwayError
from kaption_schemas.records import DataRef


class StoreObjects:
    """``kaption_gpu.ports.Objects`` on S3. Calls block; the store's client is shared between threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read(self, ref: DataRef) -> bytes:
        """The bytes that ``ref`` names. Raises ``ObjectUnavailableError`` and ``StoreAwayError``."""
        try:
            return self._store.read(ref)
        except RefusedError as error:
            raise ObjectUnavailableError(error.reason.value) from error
        except StoreError as error:
            raise StoreAwayError from error

    def remove(self, bucket: str, key: str) -> None:
        """Delete a normalised object; one that is gone is fine. Raises ``StoreAwayError``."""
        try:
            self._store.delete(bucket, key)
        except StoreError as error:
            raise StoreAwayError from error
