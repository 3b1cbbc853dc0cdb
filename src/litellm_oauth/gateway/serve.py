"""The image's command: check the settings, then start LiteLLM's server with the arguments given.

    python -m litellm_oauth.gateway.serve --config /app/config.yaml --port 4000 --run_granian

LiteLLM takes seconds to import, so a fault in the settings is said before that.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from .. import provider_keys
from ..errors import SettingsError
from ..provider_keys import MODEL_KEY_PREFIX
from ..settings import config_path, load_document, load_settings
from .log import log_level, write_to_log
from .startup_failure import CANNOT_START, say

SECRETS = Path("/run/secrets")
API_KEYS = "LITELLM_OAUTH_API_KEYS"
CALLBACK_KEYS = "LITELLM_OAUTH_CALLBACK_KEYS"
_HOOKS = "LITELLM_WORKER_STARTUP_HOOKS"
_START = "litellm_oauth.gateway.startup:start"
_REFERENCE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_log = logging.getLogger(__name__)


def main() -> int:
    """Returns the exit status; does not return while the server runs."""
    try:
        write_to_log(log_level(os.environ))
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
    """Set the keys of models and callbacks as variables of this process, from files in ``secrets``.

    LITELLM_OAUTH_API_KEYS lists the names of models' keys. NAME is set as LITELLM_OAUTH_KEY_NAME, which
    LiteLLM does not know: under the name of a provider's key it would be used for every model of that
    provider. config.yaml refers to it as ``os.environ/LITELLM_OAUTH_KEY_NAME``.
    LITELLM_OAUTH_CALLBACK_KEYS lists variables that callbacks read, which are set under their own names.
    Set here, no `docker inspect` and no process list shows them. Raises SettingsError.
    """
    model_keys, callback_keys = (environ.get(name, "").split() for name in (API_KEYS, CALLBACK_KEYS))
    faults = [f"{CALLBACK_KEYS}: {fault}" for fault in provider_keys.faults_of(callback_keys, model_keys)]
    if model_keys:
        faults += _old_references(load_document(environ), frozenset(model_keys), config_path(environ))
    found: dict[str, str] = {}
    for variable, names, prefix in (
        (API_KEYS, model_keys, MODEL_KEY_PREFIX),
        (CALLBACK_KEYS, callback_keys, ""),
    ):
        for name in names:
            try:
                found[prefix + name] = (secrets / name).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
                faults.append(
                    f"{variable}: {secrets / name} cannot be read ({reason}); correct the file or the list"
                )
    if faults:
        raise SettingsError(faults)
    _warn_of_provider_keys(environ)
    environ.update(found)


def _old_references(document: Mapping[str, Any], names: frozenset[str], path: Path) -> Iterator[str]:
    """A fault for each place in config.yaml that refers to a model's key by the name it had before."""
    for place, text in _texts(document, ""):
        for name in dict.fromkeys(a or b for a, b in _REFERENCE.findall(text)):
            if name in names:
                yield (
                    f"{path}: {place} refers to {name}, which {API_KEYS} lists and which is no variable of "
                    f"the gateway any more; write os.environ/{MODEL_KEY_PREFIX}{name}"
                )


def _texts(value: object, place: str) -> Iterator[tuple[str, str]]:
    """Each text in the document, and where it stands."""
    entries: Iterable[tuple[str, object]] = ()
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        entries = ((f"{place}.{key}".lstrip("."), item) for key, item in value.items())
    elif isinstance(value, list):
        entries = ((f"{place}[{number}]", item) for number, item in enumerate(value))
    for inner, item in entries:
        yield from _texts(item, inner)


def _warn_of_provider_keys(environ: Mapping[str, str]) -> None:
    """Say which providers' keys the container was given directly. They may be meant, so they stay."""
    names = sorted(name for name, value in environ.items() if value and provider_keys.is_provider_key(name))
    if names:
        _log.warning(
            "The environment holds %s: LiteLLM uses it for every model of that provider that has no key of "
            "its own. List a model's key in %s instead.",
            ", ".join(names),
            API_KEYS,
        )


if __name__ == "__main__":
    sys.exit(main())
