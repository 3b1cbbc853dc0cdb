"""The module's own lines in the gateway's log. LiteLLM sets up its own loggers and nobody else's."""

from __future__ import annotations

import logging

_FORMAT = "%(asctime)s litellm_oauth %(levelname)s: %(message)s"


def write_to_log() -> None:
    """From now on what this package says, from INFO on, goes to stderr. A second call changes nothing."""
    logger = logging.getLogger("litellm_oauth")
    if logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # The pool says each failed try, several a second; what it comes to is said by this package.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
