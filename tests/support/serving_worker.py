"""The pool worker as it is, but for the model: ``python -m tests.support.serving_worker``."""

from kaption_gpu.__main__ import main
from tests.support.quick_worker import Speller

if __name__ == "__main__":
    main(lambda _settings: Speller())
