"""A process is alive at once, ready when it says so, and shows its metrics."""

import aiohttp
import pytest

from kaption.adapters.settings import Settings
from kaption.service.health import Health


async def test_alive_at_once_and_ready_when_said() -> None:
    health = Health(lambda: "asr_x 1\n")
    port = await health.start(Settings(), "pool")
    base = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as http:
            assert (await http.get(f"{base}/health")).status == 200
            assert (await http.get(f"{base}/ready")).status == 503
            health.ready = True
            assert await (await http.get(f"{base}/ready")).json() == {"process": "pool", "ready": True}
            assert await (await http.get(f"{base}/metrics")).text() == "asr_x 1\n"
            with pytest.raises(OSError, match="in use"):
                await Health().start(Settings(http_port=port), "second")
    finally:
        await health.stop()
        await health.stop()
