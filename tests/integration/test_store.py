"""The embedded object store: its buckets are there, and it refuses a wrong key."""

import pytest
from pydantic import SecretStr

from kaption.adapters.embedded_s3 import missing_buckets
from kaption.adapters.s3 import StoreError
from tests.conftest import MakeSettings
from tests.support.store import EmbeddedStore


async def test_the_embedded_store_has_its_buckets_and_refuses_a_wrong_key(
    store: EmbeddedStore, make_settings: MakeSettings
) -> None:
    assert await missing_buckets(make_settings(**store.fields)) == ()
    with pytest.raises(StoreError):
        await missing_buckets(make_settings(**store.fields, s3_secret_key=SecretStr("wrong")))
