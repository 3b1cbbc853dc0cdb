"""Has a request whose dead token was replaced sent again at once.

LiteLLM alone waits half a second to more than one before it tries a model group of one deployment again. Here
the cause is mended by then. Proven on LiteLLM 1.106.2.
"""

from __future__ import annotations

from typing import Any

_MENDED = "litellm_oauth_mended"


def is_mended(error: Exception) -> None:
    """Say of an upstream's error that its cause is gone."""
    setattr(error, _MENDED, True)


def retry_at_once() -> None:
    """Teach LiteLLM's router not to wait after what ``is_mended`` was said of.

    Raises AttributeError where this LiteLLM has no such function.
    """
    from litellm.router import Router

    original = Router._time_to_sleep_before_retry

    def wait(self: Any, e: Exception, *arguments: Any, **options: Any) -> float:
        return 0 if getattr(e, _MENDED, False) else float(original(self, e, *arguments, **options))

    Router._time_to_sleep_before_retry = wait
