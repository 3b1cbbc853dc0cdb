"""What start-up makes and the hook uses: the settings and the service of this worker process."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import SettingsError, StorageUnavailable
from ..service import TokenService
from ..settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """One worker's settings and service, and its environment, where the API keys are."""

    settings: Settings
    service: TokenService
    environ: Mapping[str, str] = field(repr=False)

    def fallback_key(self, model: str, user: str) -> str | None:
        """The operator's API key for a user who never logged in; None where this model has none for them."""
        name = self.settings.fallback_to_api_key.get(model)
        if name is None:
            return None
        _log.info("%s is not logged in; %s is called with the API key %s", user, model, name)
        return self.environ[name]

    def demand_keys(self) -> None:
        """Raises SettingsError where a key that ``fallback_to_api_key`` names is not in the environment."""
        names = sorted(set(self.settings.fallback_to_api_key.values()))
        missing = [name for name in names if not self.environ.get(name)]
        if missing:
            raise SettingsError(
                [
                    f"claude_oauth.fallback_to_api_key: {name} is not set; give it the API key"
                    for name in missing
                ]
            )


class RuntimeSlot:
    """Filled once by start-up. Whoever asks before that gets an error that says what is missing."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None

    def fill(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @property
    def filled(self) -> Runtime | None:
        """What start-up made; None before that, and where the module is switched off."""
        return self._runtime

    def get(self) -> Runtime:
        """Raises StorageUnavailable where start-up has not run or the module is switched off."""
        if self._runtime is None:
            raise StorageUnavailable(
                "The OAuth module is not running in this gateway. Set LITELLM_WORKER_STARTUP_HOOKS to "
                "litellm_oauth.gateway.startup:start and claude_oauth.enabled to true."
            )
        return self._runtime
