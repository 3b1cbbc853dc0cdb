"""Requests for a model in the forms that the gateway takes, for tests that hold for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

MODEL = "claude-sonnet-4"
CALLED = "claude-sonnet-4-20250514"
MESSAGE: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "Hello"}],
}
RESPONSE: dict[str, Any] = {"model": MODEL, "input": "Hello"}


@dataclass(frozen=True)
class Form:
    """One way to ask. ``api_path`` is where the API is asked."""

    name: str
    path: str
    body: dict[str, Any]
    api_path: str = "/v1/messages"

    @property
    def anthropic(self) -> bool:
        return self.path.startswith(("/v1/messages", "/anthropic/"))

    def ask(self, client: httpx.Client, **more: Any) -> httpx.Response:
        return client.post(self.path, json={**self.body, **more})


_STREAM = {"stream": True}
# A field of LiteLLM's own makes it take a message through its router.
_ROUTED = {"num_retries": 0}
PLAIN = [
    Form("message", "/v1/messages", MESSAGE),
    Form("message through the router", "/v1/messages", {**MESSAGE, **_ROUTED}),
    Form("pass-through", "/anthropic/v1/messages", MESSAGE),
    Form("chat", "/v1/chat/completions", MESSAGE),
    Form("response", "/v1/responses", RESPONSE),
]
STREAMED = [Form(f"{form.name}, streamed", form.path, {**form.body, **_STREAM}) for form in PLAIN]
COUNTS = [
    Form("count", "/v1/messages/count_tokens", MESSAGE, "/v1/messages/count_tokens"),
    Form(
        "count below /anthropic", "/anthropic/v1/messages/count_tokens", MESSAGE, "/v1/messages/count_tokens"
    ),
]
FORMS = [*PLAIN, *STREAMED, *COUNTS]
