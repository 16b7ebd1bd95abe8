"""Runs one agent process until SIGTERM or a failure: ``python -m kaption_streams live [--stage NAME]|files``."""

import sys
from typing import Final as Const
from typing import NoReturn

from kaption.service.run import run_service
from kaption.service.services import find, usage
from kaption_streams.bootstrap import serve

_PACKAGE: Const = "kaption_streams"


def main() -> NoReturn:
    """Run the agent, and end the process."""
    service = find(_PACKAGE, sys.argv[1:])
    if service is None:
        sys.exit(usage(_PACKAGE))
    run_service(service, serve)


if __name__ == "__main__":
    main()
