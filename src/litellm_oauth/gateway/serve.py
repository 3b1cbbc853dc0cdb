"""The image's command: check the settings, then start LiteLLM's server with the arguments given.

    python -m litellm_oauth.gateway.serve --config /app/config.yaml --port 4000 --run_granian

LiteLLM takes seconds to import, so a fault in the settings is said before that.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from ..errors import SettingsError
from ..settings import load_settings
from .log import log_level
from .startup_failure import CANNOT_START, say

SECRETS = Path("/run/secrets")
API_KEYS = "LITELLM_OAUTH_API_KEYS"
_HOOKS = "LITELLM_WORKER_STARTUP_HOOKS"
_START = "litellm_oauth.gateway.startup:start"


def main() -> int:
    """Returns the exit status; does not return while the server runs."""
    try:
        log_level(os.environ)
        load_settings()
        set_api_keys(os.environ, SECRETS)
    except SettingsError as error:
        say(error.message)
        return CANNOT_START
    hooks = [hook for hook in os.environ.get(_HOOKS, "").split(",") if hook.strip()]
    if _START not in hooks:
        os.environ[_HOOKS] = ",".join([_START, *hooks])
    # The imports make a million objects and no garbage; to look for it costs a second. `startup` resumes.
    gc.disable()
    from litellm.proxy.proxy_cli import ProxyInitializationHelpers, run_server

    from .server import serve

    ProxyInitializationHelpers.init_granian_server = staticmethod(serve)
    sys.argv[0] = "litellm"
    run_server()
    return 0


def set_api_keys(environ: MutableMapping[str, str], secrets: Path) -> None:
    """Set the variables that config.yaml names as ``os.environ/NAME``, from files of these names.

    LITELLM_OAUTH_API_KEYS lists them. Set here, no `docker inspect` and no process list shows them.
    Raises SettingsError.
    """
    faults = []
    for name in environ.get(API_KEYS, "").split():
        try:
            environ[name] = (secrets / name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            faults.append(
                f"{API_KEYS}: {secrets / name} cannot be read ({reason}); correct the file or the list"
            )
    if faults:
        raise SettingsError(faults)


if __name__ == "__main__":
    sys.exit(main())
