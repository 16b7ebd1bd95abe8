"""Fakes an object store in memory, behind the pool's port."""

from kaption.adapters.store.s3 import normalised_key
from kaption.domain.records import RunKey
from kaption_schemas.errors import RefusedError, StoreError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef

#: The default work bucket.
WORK = "kaption"


class MemoryObjects:
    """Implements ``kaption.domain.pool.ports.Objects``. ``objects`` holds bodies by bucket and key; the next ``away`` reads
    find no store.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.away = 0

    def read(self, ref: DataRef) -> bytes:
        if self.away:
            self.away -= 1
            raise StoreError
        body = self.objects.get((ref.bucket, ref.key))
        if body is None:
            raise RefusedError(Reason.AUDIO_UNAVAILABLE)
        return body[ref.offset : ref.offset + ref.length]

    def remove(self, run: RunKey) -> None:
        self.objects.pop((WORK, normalised_key(run)), None)

    def works(self) -> bool:
        return not self.away
