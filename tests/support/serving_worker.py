"""The pool worker as it is, but for the model: ``python -m tests.support.serving_worker``."""

import asyncio
import os

from kaption.adapters import logs
from kaption.adapters.settings import Settings
from kaption_gpu.__main__ import serve
from tests.support.quick_worker import Speller

if __name__ == "__main__":
    logs.configure(Settings(), "pool")
    asyncio.run(serve(Settings(), lambda _settings: Speller()))
    os._exit(0)
