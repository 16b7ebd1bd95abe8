"""Model backends. ``make_backend`` chooses one, once; nothing else in the pool knows which."""

from importlib import import_module

from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import Backend

#: Backend name -> the module whose ``load(settings)`` makes it. Only the chosen one is imported, since each loads a runtime.
MODULES = {
    "auto": "kaption_gpu.engine.backends.pairs",
    "openvino": "kaption_gpu.engine.backends.pairs",
    "openvino-int8": "kaption_gpu.engine.backends.pairs",
    "faster-whisper": "kaption_gpu.engine.backends.faster_whisper",
    "openai-whisper": "kaption_gpu.engine.backends.openai_whisper",
}


def make_backend(settings: Settings) -> Backend:
    """Load the backend that ``settings.backend`` names; call its ``warm_up`` before use.

    Raises:
        ValueError: The backend is unknown.
        IncompatibleError: ``settings.model`` has no weights.
        ImportError: The backend's extra is not installed.
    """
    if settings.backend not in MODULES:
        raise ValueError(f"no backend {settings.backend!r}: use one of {', '.join(MODULES)}")
    backend: Backend = import_module(MODULES[settings.backend]).load(settings)
    return backend
