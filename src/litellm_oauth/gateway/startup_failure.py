"""How a gateway that cannot start says so: one clear text on stderr, no traceback."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

# uvicorn and gunicorn take this status for "cannot start" and do not try again for ever.
CANNOT_START = 3


def say(message: str) -> None:
    """Write the reason where the container's log picks it up."""
    sys.stdout.flush()
    print(f"litellm_oauth cannot start: {message}", file=sys.stderr, flush=True)  # noqa: T201


def end_worker(message: str) -> NoReturn:
    """End this worker process at once: an exception would show a traceback and bury the reason."""
    say(message)
    os._exit(CANNOT_START)
