"""The provider's habits, which a control request can change while it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .settings import Settings


@dataclass(frozen=True, slots=True)
class Knobs:
    """Durations are in seconds.

    ``expires_in`` is what clients are told where it shall differ from the truth (``access_token_seconds``).
    ``rotate`` off: a refresh token can be used again. ``send_refresh_token`` off: a refresh answers without
    one, and the old one stays good. ``stream_pause_seconds`` is waited between the pieces of a stream.
    ``claude_tokens`` off: people's access tokens look like those of any other provider.
    """

    access_token_seconds: float
    refresh_token_seconds: float
    clock_skew_seconds: float = 0
    expires_in: float | None = None
    rotate: bool = True
    send_refresh_token: bool = True
    send_refresh_token_expires_in: bool = True
    stream_pause_seconds: float = 0
    claude_tokens: bool = True


class KnobBoard:
    """The knobs as they stand now, and as they stood at the start."""

    def __init__(self, settings: Settings) -> None:
        self._initial = Knobs(settings.access_token_seconds, settings.refresh_token_seconds)
        self.now = self._initial

    def turn(self, changes: dict[str, float | bool | None]) -> Knobs:
        # the caller has checked names and types against Knobs
        self.now = replace(self.now, **changes)  # type: ignore[arg-type]
        return self.now

    def reset(self) -> None:
        self.now = self._initial
