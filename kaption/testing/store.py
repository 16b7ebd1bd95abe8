"""Runs the embedded object store as a test's child."""

import asyncio
import time
from pathlib import Path

from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import Settings
from kaption.adapters.store.embedded import answers, create_buckets, embedded
from kaption.testing.processes import Child

START_SECONDS = 60


class EmbeddedStore:
    """SeaweedFS with the buckets of ``settings``; ready in a few seconds. ``fields`` are the settings that reach it."""

    def __init__(self, data: Path) -> None:
        settings = Settings()
        secret = settings.s3_secret_key.get_secret_value()
        self._command = embedded(data, free_port(), settings.s3_access_key, secret)
        self.fields = {"s3": self._command.url}
        self.child = Child(self._command.argv, data / "weed.log", self._command.env)

    def port(self, role: str) -> int:
        """Return the port where the store's ``role`` would speak HTTP."""
        return next(int(part.rpartition("=")[2]) for part in self._command.argv if part.startswith(f"-{role}.port="))

    async def start(self) -> None:
        """Start and create the buckets. Raises ``TimeoutError``."""
        settings = Settings(s3=self._command.url)
        self.child.spawn()
        end = time.monotonic() + START_SECONDS
        while not await answers(settings):
            if not self.child.running or time.monotonic() > end:
                raise TimeoutError(f"the object store did not start:\n{self.child.output()}")
            await asyncio.sleep(0.1)
        await create_buckets(settings)

    def stop(self) -> None:
        """Send SIGKILL: acknowledged data is on disk, and a clean stop takes 16 s."""
        self.child.kill()
        self._command.clean()
