"""What start-up makes and requests use: the settings and the service of this worker process."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import NotLoggedIn, SettingsError, StorageUnavailable
from ..provider_keys import MODEL_KEY_PREFIX, is_provider_key
from ..service import TokenService
from ..settings import Settings
from ..tokens import AccessToken

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the operator's, for a user who is not logged in."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Runtime:
    """One worker's settings and service, and its environment, where the API keys are."""

    settings: Settings
    service: TokenService
    environ: Mapping[str, str] = field(repr=False)

    async def credential(self, user: str, model: str | None) -> AccessToken | ApiKey:
        """What a user's request goes out with: their token; the model's key only where they have no login.

        A dead login and every fault are errors, never a reason for the key. ``model``: what clients call it;
        None where no key may be used. Raises what ``TokenService.access_token`` raises.
        """
        try:
            return await self.service.access_token(user)
        except NotLoggedIn:
            name = None if model is None else self.settings.fallback_to_api_key.get(model)
            if name is None:
                raise
            _log.debug("%s is not logged in; %s is called with the API key %s", user, model, name)
            return ApiKey(self.environ[name])

    def demand_keys(self) -> None:
        """Raises SettingsError where a key that ``fallback_to_api_key`` names is not in the environment."""
        names = sorted(set(self.settings.fallback_to_api_key.values()))
        missing = [name for name in names if not self.environ.get(name)]
        if missing:
            setting = "claude_oauth.fallback_to_api_key"
            raise SettingsError([f"{setting}: {name} is not set; give it the API key" for name in missing])


def operator_keys(environ: Mapping[str, str]) -> frozenset[str]:
    """The values of all API keys that the operator gave to models, or to providers in the environment."""
    return frozenset(
        value
        for name, value in environ.items()
        if value and (name.startswith(MODEL_KEY_PREFIX) or is_provider_key(name))
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
