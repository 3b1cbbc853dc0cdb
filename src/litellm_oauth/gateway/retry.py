"""Sends a request whose dead token was replaced again at once, and tells at once what no try can change.

LiteLLM alone waits half a second to two before it tries a model group of one deployment again, and after the
last try as well. Here there is nothing to wait for. Proven on LiteLLM 1.106.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def retry_at_once(where: Callable[[Exception], bool], is_final: Callable[[Exception], bool]) -> None:
    """Teach LiteLLM's router not to wait after an error for which ``where`` is true.

    An error for which ``is_final`` is true goes to the client without another try.

    Raises AttributeError where this LiteLLM has no such function.
    """
    from litellm.router import Router

    original = Router._time_to_sleep_before_retry

    def wait(self: Any, e: Exception, *arguments: Any, **options: Any) -> float:
        if is_final(e):
            # Called where the error is being handled, so it goes on its way as if there were no retries.
            raise e
        return 0 if where(e) else float(original(self, e, *arguments, **options))

    Router._time_to_sleep_before_retry = wait
