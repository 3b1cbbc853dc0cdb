"""What start-up makes and the hook uses: the settings and the service of this worker process."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import StorageUnavailable
from ..service import TokenService
from ..settings import Settings


@dataclass(frozen=True, slots=True)
class Runtime:
    """One worker's settings and service."""

    settings: Settings
    service: TokenService


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
