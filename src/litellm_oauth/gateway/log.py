"""How much the gateway's log says: this package's lines and LiteLLM's, by one variable.

Secrets are in none of them, at any level: this package has none in its lines, and LiteLLM hides those in
its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..errors import SettingsError

LEVEL = "LITELLM_LOG_LEVEL"
DETAILED = "DETAILED_DEBUG"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMAT = "%(asctime)s litellm_oauth %(levelname)s: %(message)s"
# LiteLLM's own variables. A word that it does not know ends it with a traceback.
_OF_LITELLM = "LITELLM_LOG"
_BARE = "LITELLM_DISABLE_REDACT_SECRETS"
_LITELLM = ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router")
_SWITCH = {
    **dict.fromkeys(("true", "t", "1", "yes", "y", "on"), True),
    **dict.fromkeys(("false", "f", "0", "no", "n", "off", ""), False),
}


def log_level(environ: Mapping[str, str]) -> str:
    """By LITELLM_LOG_LEVEL, else by LiteLLM's LITELLM_LOG, else INFO; with DETAILED_DEBUG it is DEBUG.

    Raises SettingsError for what nobody understands, and where LiteLLM is told to hide no secrets: those of
    users are not the operator's to show.
    """
    faults = []
    words = {name: environ.get(name, "").strip().upper() for name in (LEVEL, _OF_LITELLM)}
    for name, word in words.items():
        if word and word not in LEVELS:
            faults.append(f"{name}: is none of the possible words; write one of: {', '.join(LEVELS)}")
    detailed = _SWITCH.get(environ.get(DETAILED, "").strip().lower())
    if detailed is None:
        faults.append(f"{DETAILED}: is neither true nor false; write one of the two")
    if environ.get(_BARE, "").lower() == "true":
        faults.append(f"{_BARE}: is true, which would write users' tokens into the log; leave it out")
    if faults:
        raise SettingsError(faults)
    return "DEBUG" if detailed else words[LEVEL] or words[_OF_LITELLM] or "INFO"


def write_to_log(level: str) -> None:
    """What this package says, from ``level`` on, goes to stderr now. A second call changes nothing."""
    logger = logging.getLogger("litellm_oauth")
    if logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    if level != "INFO":
        # With INFO LiteLLM writes several lines for each request: LITELLM_LOG=INFO asks for them.
        for name in _LITELLM:
            logging.getLogger(name).setLevel(level)
    # The pool says each failed try, several a second; what it comes to is said by this package.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
