"""The embedded object store: its buckets are there, and it refuses a wrong key."""

import asyncio
import urllib.error
import urllib.request
from typing import cast

import pytest
from pydantic import SecretStr

from kaption.adapters.store.embedded import missing_buckets
from kaption.adapters.store.s3 import ObjectStore
from kaption.testing.store import EmbeddedStore
from kaption_gpu.lanes.objects import StoreObjects
from kaption_schemas.errors import StoreError
from tests.conftest import MakeSettings


async def test_a_worker_can_tell_that_its_store_works(store: EmbeddedStore, make_settings: MakeSettings) -> None:
    settings = make_settings(**store.fields)
    good, bad = (
        StoreObjects(ObjectStore(each), each.work_bucket)
        for each in (settings, make_settings(**store.fields, s3_secret_key=SecretStr("wrong")))
    )
    assert await asyncio.to_thread(good.works)
    assert not await asyncio.to_thread(bad.works)


@pytest.mark.parametrize(
    ("role", "method", "path"),
    [
        ("master", "POST", "/col/delete?collection=media"),
        ("master", "GET", "/dir/status"),
        ("filer", "GET", "/"),
        ("volume", "GET", "/1,01637037d6"),
        ("volume", "POST", "/1,01637037d6"),
        ("volume", "DELETE", "/1,01637037d6"),
    ],
)
async def test_no_port_takes_what_nobody_signed(store: EmbeddedStore, role: str, method: str, path: str) -> None:
    """Any user of the machine, and a web page that finds the port, could empty a bucket."""
    status = await asyncio.to_thread(_asked, f"http://127.0.0.1:{store.port(role)}{path}", method)
    assert status == 401 if role == "volume" else status in {None, 401, 403, 404}


def _asked(url: str, method: str) -> int | None:
    """The status of an answer; None where nothing there speaks HTTP."""
    body = b"x" if method == "POST" else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=5) as answer:  # noqa: S310
            return cast("int", answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


async def test_the_embedded_store_has_its_buckets_and_refuses_a_wrong_key(
    store: EmbeddedStore, make_settings: MakeSettings
) -> None:
    assert await missing_buckets(make_settings(**store.fields)) == ()
    with pytest.raises(StoreError):
        await missing_buckets(make_settings(**store.fields, s3_secret_key=SecretStr("wrong")))
