"""``python -m litellm_oauth.prepare``: makes the database ready for a gateway that is about to start.

It applies pending migrations and compares the encryption key with the one that the database was written with.
The gateway does the same when it starts; done before, a fault leaves the gateway that runs now alone.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from .assembly import open_service
from .errors import LitellmOAuthError
from .settings import Settings, load_settings

# Seconds to wait for a database that has just been started, which may be making its data directory.
PATIENCE = 60.0


def main() -> int:
    """Returns the exit status; what was applied goes to stdout, a fault as one sentence to stderr."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("litellm_oauth").setLevel(logging.INFO)
    try:
        settings = load_settings()
        if settings.enabled:
            asyncio.run(_prepare(settings))
    except LitellmOAuthError as error:
        print(error.message, file=sys.stderr, flush=True)  # noqa: T201 -- a command says why it fails
        return 1
    return 0


async def _prepare(settings: Settings) -> None:
    service = await open_service(settings, patience=PATIENCE)
    await service.close()


if __name__ == "__main__":
    sys.exit(main())
