"""What LiteLLM's ``/health`` says of models that take the caller's own token.

LiteLLM would call such a model with the word ``oauth`` for a key, and find it sick. There is no user behind a
health check, and a user's token is not for that: what is looked at is whether the API is there. Proven on
LiteLLM 1.106.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from ..errors import Forbidden
from .deployments import Deployment, ProviderOf, address_of, is_marked

_TIMEOUT = httpx.Timeout(10)
_PATH = "/v1/messages"
Check = Callable[[Any], Awaitable[Any]]


class Health:
    """Looks at the APIs behind the marked models, each once at a time, however many models it has."""

    def __init__(
        self, client: httpx.AsyncClient, provider_of: ProviderOf, allowed_api_bases: tuple[str, ...]
    ) -> None:
        self._client = client
        self._provider_of = provider_of
        self._allowed = allowed_api_bases
        self._running: dict[str, asyncio.Task[str | None]] = {}

    async def of(self, deployment: Deployment) -> dict[str, str]:
        """Nothing where a call of this model has somewhere to go; else ``error``: what is wrong."""
        try:
            base = address_of(deployment["litellm_params"], self._provider_of, self._allowed)
        except Forbidden as error:
            return {"error": error.message}
        task = self._running.get(base)
        if task is None:
            task = self._running[base] = asyncio.create_task(self._look(base))
            task.add_done_callback(lambda _: self._running.pop(base, None))
        # Who stops waiting must not take the answer from the others.
        fault = await asyncio.shield(task)
        return {} if fault is None else {"error": fault}

    async def _look(self, base: str) -> str | None:
        """Ask without credentials: an API that refuses that is there. It costs nobody anything."""
        try:
            answer = await self._client.post(
                f"{base}{_PATH}", json={}, timeout=_TIMEOUT, follow_redirects=False
            )
        except httpx.HTTPError as error:
            return f"The API at {base} did not answer ({type(error).__name__})."
        if answer.status_code >= 500:
            return f"The API at {base} answers HTTP {answer.status_code}."
        if answer.status_code == httpx.codes.NOT_FOUND or answer.is_redirect:
            return f"There is no API at {base}: {_PATH} answers HTTP {answer.status_code}. Correct api_base."
        return None


def look_at_marked_models(health: Health) -> None:
    """Have LiteLLM's health checks ask ``health`` about marked models, and about no others.

    Raises AttributeError where this LiteLLM has no such function.
    """
    from litellm.proxy import health_check

    health_check._run_model_health_check = _asking(health, health_check._run_model_health_check)


def _asking(health: Health, original: Check) -> Check:
    async def check(model: Mapping[str, Any]) -> Any:
        return await (health.of(model) if is_marked(model) else original(model))

    return check
