"""Asks LiteLLM whose a key is, by the headers of a request alone. Proven on LiteLLM 1.106.2."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import HTTPException, Request
from litellm.proxy._types import ProxyException
from litellm.proxy.auth.user_api_key_auth import user_api_key_auth
from starlette.types import Receive, Scope

from ..errors import Forbidden, InvalidInput, LitellmOAuthError, StorageUnavailable
from .errors import UnknownKey
from .identity import KeyHolder

_log = logging.getLogger(__name__)
# A key that may call a model may log its owner in. LiteLLM opens this route to every key, ours to few.
_ROUTE_OF_EVERY_KEY = "/v1/models"
_ABOUT_THE_BODY = (b"content-length", b"content-type", b"transfer-encoding")


async def holder_of_key(scope: Scope) -> KeyHolder:
    """Who holds the key that the headers carry.

    Raises UnknownKey, Forbidden, InvalidInput, StorageUnavailable.
    """
    return await _ask(Request(_key_only(scope), _nothing))


async def holder_of_request(scope: Scope, receive: Receive) -> KeyHolder:
    """The same for a whole request: LiteLLM checks the key's budget and its models as well.

    Raises what ``holder_of_key`` raises.
    """
    return await _ask(Request(scope, receive))


async def _ask(request: Request) -> KeyHolder:
    try:
        holder: KeyHolder = await user_api_key_auth(request=request, **_key_headers(request))
    except ProxyException as error:
        raise _refusal(error, int(error.code or 401), str(error.message)) from None
    except HTTPException as error:
        raise _refusal(error, error.status_code, str(error.detail)) from None
    return holder


def _key_only(scope: Scope) -> Scope:
    """The request as LiteLLM's check of the key shall see it: no body, on a route that is every key's."""
    return {
        **scope,
        "method": "GET",
        "path": _ROUTE_OF_EVERY_KEY,
        "raw_path": _ROUTE_OF_EVERY_KEY.encode(),
        "query_string": b"",
        "state": {},
        "headers": [pair for pair in scope["headers"] if pair[0].lower() not in _ABOUT_THE_BODY],
    }


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def _key_headers(request: Request) -> dict[str, Any]:
    headers = request.headers
    return {
        "api_key": headers.get("Authorization"),
        "azure_api_key_header": headers.get("API-Key"),
        "anthropic_api_key_header": headers.get("x-api-key"),
        "google_ai_studio_api_key_header": headers.get("x-goog-api-key"),
        "azure_apim_header": headers.get("Ocp-Apim-Subscription-Key"),
        "custom_litellm_key_header": headers.get("x-litellm-api-key"),
    }


def _refusal(error: Exception, status: int, message: str) -> LitellmOAuthError:
    if status == 400:
        return InvalidInput(message)
    if status == 403:
        return Forbidden(message)
    if status >= 500:
        return StorageUnavailable("LiteLLM could not check the key just now. Try again in a moment.")
    _log.info("A key was refused: %s", type(error).__name__)
    return UnknownKey()
