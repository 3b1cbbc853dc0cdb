"""The LiteLLM callback that puts the caller's own token into a request.

Named in config.yaml as ``litellm_settings.callbacks: [litellm_oauth.gateway.hook.oauth_hook]``. Proven on
LiteLLM 1.106.2; what it leans on is said where it does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException, UserAPIKeyAuth

from ..errors import LitellmOAuthError
from .acting import user_behind
from .answers import ErrorAnswer, chat_answer_for
from .bearer import as_api_key
from .deployments import ANTHROPIC, Deployment, Destination, base_of, destination_of, is_marked
from .errors import UnknownKey
from .exchange import Failure, current, origin_or
from .headers import choose_headers, values_of
from .http_clients import RefusedByGatewayError
from .identity import DEFAULT_USER, USER_HEADER
from .runtime import ApiKey, Runtime, RuntimeSlot

_log = logging.getLogger(__name__)

# Where LiteLLM puts what it knows of the caller: `metadata` for chat, `litellm_metadata` for others.
_METADATA = ("litellm_metadata", "metadata")
# After a 401 the token has been replaced. A 429 is about the user's account: asking again makes it worse, and
# the client knows from Retry-After when to.
_RETRIES = {"AuthenticationErrorRetries": 1, "RateLimitErrorRetries": 0}


class RefusedCallError(ProxyException):  # type: ignore[misc]  # LiteLLM is Any outside the image
    """A call that must not be sent, with the answer its caller gets.

    ``code`` is what LiteLLM's routes answer with. ``status_code`` is what its router looks at: a bad request
    of this caller, so it neither tries again nor takes the deployment from others.
    """

    status_code = 400

    def __init__(self, answer: ErrorAnswer) -> None:
        kind = answer.body["error"]["type"]
        super().__init__(answer.message, kind, None, answer.status, dict(answer.headers), answer.code)
        self.answer = answer


@dataclass(slots=True)
class _Attempt:
    """What went upstream in this call, for the case that it comes back with a 401."""

    call_id: object
    api_key: str = field(repr=False)
    user: str
    generation: int
    failure: LitellmOAuthError | None = None
    # The token was replaced, or cannot be.
    settled: bool = False


# The hooks of one call run in one task, so a context variable holds what no log and no request shall see.
_attempt: ContextVar[_Attempt | None] = ContextVar("litellm_oauth_attempt", default=None)


class OAuthHook(CustomLogger):  # type: ignore[misc]  # LiteLLM is Any outside the image
    """Swaps the mark ``oauth`` for the caller's token, on every attempt, after a deployment was chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.runtime = RuntimeSlot()
        self._providers: dict[tuple[Any, Any], str | None] = {}

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any] | None:
        """Keep LiteLLM's response cache away from users' tokens: its key does not tell one from another.

        Also say how often an error is worth another try.
        """
        model = data.get("model")
        if not isinstance(model, str) or not _is_marked_group(model):
            return None
        data["cache"] = {"no-cache": True, "no-store": True}
        data["model_group_retry_policy"] = {model: dict(_RETRIES)}
        return data

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: Any
    ) -> dict[str, Any] | None:
        """Put the caller's token in. Raises RefusedCallError, for this caller alone, where there is none."""
        user, public_url = DEFAULT_USER, ""
        _forget_answer()
        # A fallback keeps the call's id: what its own key meets upstream is not about a user's token.
        earlier = _attempt.get()
        _attempt.set(None)
        try:
            destination = destination_of(kwargs, _find_deployment, self.provider_of, self._allowed)
            if destination is None:
                if earlier is not None and earlier.api_key == kwargs.get("api_key"):
                    # The same call, one layer further in: /v1/responses becomes a chat.
                    _attempt.set(earlier)
                return self._without_credentials(kwargs)
            _spare_others(kwargs)
            runtime = self.runtime.get()
            public_url = runtime.settings.public_url
            user = await _user_of(kwargs, runtime)
            api_key = await self._api_key(kwargs, user, destination, runtime, earlier)
        except LitellmOAuthError as error:
            raise RefusedCallError(chat_answer_for(error, user=user, public_url=public_url)) from None
        _begin(destination.base)
        swapped = dict(kwargs)
        swapped["api_key"] = api_key
        swapped["api_base"] = destination.base
        swapped.pop("base_url", None)
        swapped["caching"] = False
        swapped["cache"] = {"no-cache": True, "no-store": True}
        choose_headers(swapped, destination.params)
        return swapped

    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, Any],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """After an upstream 401: get the token that the next try shall carry. LiteLLM waits for it."""
        attempt = _attempt.get()
        if attempt is None or attempt.api_key != request_data.get("api_key"):
            return
        if not isinstance(exception, litellm.AuthenticationError):
            return
        try:
            await self.runtime.get().service.replace_rejected(attempt.user, attempt.generation)
        except LitellmOAuthError as error:
            attempt.failure = error
            exchange = current.get()
            if exchange is not None:
                # LiteLLM tells of the end of a call in another task than of its attempts.
                exchange.failure = Failure(attempt.user, error)
        # What we were given is a copy of the error, so it cannot hold this.
        attempt.settled = True

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Give the caller the sentence that belongs to the error."""
        if isinstance(original_exception, RefusedCallError):
            # The router has added a sentence about fallbacks, which are none of this error's business.
            original_exception.message = original_exception.answer.message
            return
        exchange = current.get()
        failure = None if exchange is None else exchange.failure
        if isinstance(original_exception, litellm.AuthenticationError) and failure is not None:
            public_url = self.runtime.get().settings.public_url
            answer = chat_answer_for(failure.error, user=failure.user, public_url=public_url)
            original_exception.message = f"{original_exception.message} {answer.message}"

    def waits_for_nothing(self, error: Exception) -> bool:
        """Whether time does nothing about the error of the try that has just ended."""
        if isinstance(error, RefusedCallError | RefusedByGatewayError):
            return True
        attempt = _attempt.get()
        return isinstance(error, litellm.AuthenticationError) and attempt is not None and attempt.settled

    def is_final(self, error: Exception) -> bool:
        """Whether an error goes to the client at once: the API has said when to ask again (RFC 9110 §10.2.3).

        A redirect, a refusal of the gateway's own or a body that cannot be translated is no better the next
        time.
        """
        exchange = current.get()
        if isinstance(error, litellm.AuthenticationError) or exchange is None:
            return False
        return (
            not exchange.asked
            or exchange.refusal is not None
            or bool(exchange.headers.keys() & {"retry-after", "retry-after-ms"})
        )

    def _allowed(self) -> tuple[str, ...]:
        return self.runtime.get().settings.allowed_api_bases

    async def _api_key(
        self,
        kwargs: Mapping[str, Any],
        user: str,
        destination: Destination,
        runtime: Runtime,
        earlier: _Attempt | None,
    ) -> str:
        """The caller's token, or the API key that stands in for it."""
        call_id = kwargs.get("litellm_call_id")
        if earlier is not None and earlier.call_id == call_id and earlier.failure is not None:
            raise earlier.failure
        token = await runtime.credential(user, destination.model)
        if isinstance(token, ApiKey):
            return token.value
        _log.debug(
            "%s is called with the token of %s (generation %d)", destination.model, user, token.generation
        )
        api_key = as_api_key(token.value)
        _attempt.set(_Attempt(call_id, api_key, user, token.generation))
        return api_key

    def _without_credentials(self, kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The call without a client's credentials, for a model that has the operator's.

        LiteLLM would send a token that a client brings in place of the model's key or federated token.
        """
        identifier = (kwargs.get("model_info") or {}).get("id")
        deployment = _find_deployment(identifier) if isinstance(identifier, str) else None
        if deployment is None or self.provider_of(deployment["litellm_params"]) != ANTHROPIC:
            return None
        _begin(base_of(deployment["litellm_params"]))
        kept = dict(kwargs)
        choose_headers(kept, deployment["litellm_params"])
        return kept

    def provider_of(self, params: Mapping[str, Any]) -> str | None:
        """The provider that LiteLLM would speak to with these parameters, or None."""
        key = (params.get("model"), params.get("custom_llm_provider"))
        if key not in self._providers:
            self._providers[key] = _provider_named(*key)
        return self._providers[key]


def _provider_named(model: Any, provider: Any) -> str | None:
    if isinstance(provider, str) and provider:
        return provider
    try:
        return str(litellm.get_llm_provider(model=model)[1])
    except Exception:
        # LiteLLM raises many types here; whatever it is, the provider is not known to be the right one.
        return None


def _find_deployment(identifier: str) -> Deployment | None:
    from litellm.proxy.proxy_server import llm_router

    return None if llm_router is None else llm_router.get_model_info(id=identifier)


def _is_marked_group(model: str) -> bool:
    from litellm.proxy.proxy_server import llm_router

    if llm_router is None:
        return False
    return any(is_marked(deployment) for deployment in llm_router.get_model_list(model_name=model) or ())


async def _user_of(kwargs: Mapping[str, Any], runtime: Runtime) -> str:
    """Whose token to send. Only what LiteLLM wrote counts: no body can hold an instance of its class."""
    for name in _METADATA:
        metadata = kwargs.get(name)
        if not isinstance(metadata, Mapping):
            continue
        holder = metadata.get("user_api_key_auth")
        if isinstance(holder, UserAPIKeyAuth):
            named = values_of(metadata.get("headers"), USER_HEADER)
            origin = origin_or(str(metadata.get("requester_ip_address") or "unknown"))
            return await user_behind(holder, named, origin, runtime)
    raise UnknownKey


def _begin(api_base: str) -> None:
    """Tell the request that is being answered which API it is about."""
    exchange = current.get()
    if exchange is not None:
        exchange.begin(api_base)


def _forget_answer() -> None:
    """What became of an earlier attempt is not the answer to this one."""
    exchange = current.get()
    if exchange is None:
        return
    exchange.failure = None
    if exchange.api_base is not None:
        exchange.begin(exchange.api_base)


def _spare_others(kwargs: dict[str, Any]) -> None:
    """No error of this caller may put the deployment into cooldown for others.

    The router reads it from this very dictionary, its own copy for this call, also where the hook raises.
    """
    info = kwargs.get("model_info")
    if isinstance(info, dict):
        info["cooldown_time"] = 0


oauth_hook = OAuthHook()
