"""Model backends: ``make_backend`` chooses one, once. Nothing else in the pool knows which."""

from importlib import import_module

from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import Backend

#: Backend name -> the module whose ``load(settings)`` makes it; imported on choice, since each brings a runtime.
MODULES = {
    "auto": "kaption_gpu.engine.backends.pairs",
    "openvino": "kaption_gpu.engine.backends.pairs",
    "openvino-int8": "kaption_gpu.engine.backends.pairs",
    "faster-whisper": "kaption_gpu.engine.backends.faster_whisper",
    "openai-whisper": "kaption_gpu.engine.backends.openai_whisper",
}


def make_backend(settings: Settings) -> Backend:
    """Load the backend that ``settings.backend`` names; call its ``warm_up`` before it counts as ready.

    Raises:
        ValueError: There is no such backend.
        WeightsError: There are no weights for ``settings.model``.
        ImportError: The backend's extra is not installed.
    """
    if settings.backend not in MODULES:
        raise ValueError(f"no backend {settings.backend!r}: use one of {', '.join(MODULES)}")
    backend: Backend = import_module(MODULES[settings.backend]).load(settings)
    return backend
