"""Reads byte ranges of normalised audio from the object store, and deletes them."""

import io
from typing import Final as Const
from uuid import uuid4

from kaption.adapters.store.s3 import NORMALISED, ObjectStore
from kaption.domain.records import RunKey
from kaption_schemas.errors import RefusedError, StoreError
from kaption_schemas.records import DataRef

_PROBE: Const = b"kaption"


class StoreObjects:
    """Implements ``kaption.domain.pool.ports.Objects`` on S3. Calls block; threads share the store's client."""

    def __init__(self, store: ObjectStore, work_bucket: str) -> None:
        self._store = store
        self._bucket = work_bucket

    def read(self, ref: DataRef) -> bytes:
        """The bytes that ``ref`` names. Raises ``RefusedError`` and ``StoreError``."""
        return self._store.read(ref)

    def remove(self, run: RunKey) -> None:
        """Delete a run's normalised object, if it still exists. Raises ``StoreError``."""
        self._store.delete_normalised(run)

    def works(self) -> bool:
        """Whether the store writes and reads a small object in the work bucket."""
        key = f"{NORMALISED}probe-{uuid4().hex}"  # if it is left, it expires like any other
        try:
            self._store.put(self._bucket, key, io.BytesIO(_PROBE))
            given = self._store.read(DataRef(bucket=self._bucket, key=key, offset=0, length=len(_PROBE)))
            self._store.delete(self._bucket, key)
        except (StoreError, RefusedError):
            return False
        return given == _PROBE
