"""The OAuth 2.0 client: authorize URL, code exchange, refresh (RFC 6749, RFC 7636) and revocation (RFC 7009).

All that differs between providers is in ProviderSettings.

Errors are types. No exception text holds a token, a code, or anything else that the provider sent, apart from
its error code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

import httpx

from .answer_body import MAX_ANSWER_BYTES, members
from .errors import InvalidGrant, ProviderRefused, ProviderUnavailable
from .grant import Grant, error_code, is_dead, is_error, parse_grant, retry_after
from .settings import ProviderSettings

_log = logging.getLogger(__name__)
# Marks the requests to the authorization server, which may have the API's host.
OF_THE_PROVIDER = "litellm_oauth_provider"
_TRY_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
# 529 is what Anthropic's API answers when it is overloaded.
_BUSY = (HTTPStatus.SERVICE_UNAVAILABLE, 529)
# RFC 6749 §4.1.2.1, RFC 8628 §3.5: words for what passes.
_BUSY_WORDS = frozenset(("temporarily_unavailable", "server_error", "slow_down"))


class Provider:
    """One authorization server. The HTTP client is passed in and stays the caller's to close."""

    def __init__(
        self, settings: ProviderSettings, client: httpx.AsyncClient, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._client = client
        self._clock = clock
        self._auth = _basic(settings) if settings.client_authentication == "basic" else None

    @property
    def issuer(self) -> str:
        """Pinned to each pending login against mix-up (RFC 9700 §4.4)."""
        return self._settings.issuer

    @property
    def requires_issuer(self) -> bool:
        """Whether a redirect that does not name its issuer is not this server's (RFC 9207 §2.4)."""
        return self._settings.require_issuer

    @property
    def client_id(self) -> str:
        """To whom this server issues its tokens (RFC 6749 §2.2)."""
        return self._settings.client_id

    @property
    def redirect_uri(self) -> str:
        return self._settings.redirect_uri

    @property
    def token_timeout(self) -> float:
        """The longest a call takes, in seconds."""
        return self._settings.token_timeout

    def authorization_url(self, *, challenge: str, state: str) -> str:
        """Where the person consents (RFC 6749 §4.1.1, RFC 7636 §4.3)."""
        split = urlsplit(self._settings.authorize_url)
        parameters = {
            **dict(parse_qsl(split.query)),
            **self._settings.authorize_parameters,
            "client_id": self.client_id,
            "response_type": "code",
            "redirect_uri": self._settings.redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": state,
        }
        return urlunsplit(split._replace(query=urlencode(parameters)))

    async def exchange(self, *, code: str, verifier: str, state: str | None) -> Grant:
        """Code for tokens (RFC 6749 §4.1.3, RFC 7636 §4.5). Some providers want the ``state`` as well.

        Raises InvalidGrant, ProviderRefused, ProviderUnavailable.
        """
        body = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._settings.redirect_uri,
            "code_verifier": verifier,
        }
        if state is not None:
            body["state"] = state
        return await self._ask_for_tokens(body)

    async def refresh(self, refresh_token: str) -> Grant:
        """New tokens (RFC 6749 §6). No scope is sent, so that the granted ones stay.

        Raises InvalidGrant, ProviderRefused, ProviderUnavailable.
        """
        return await self._ask_for_tokens({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def revoke(self, token: str, hint: str) -> bool | None:
        """Revoke a token (RFC 7009 §2.1); ``hint`` is ``refresh_token`` or ``access_token``.

        True: the provider confirmed it (200, also for a token it did not know, RFC 7009 §2.2). False: it did
        not, whatever the reason. None: no revocation endpoint is configured. Never raises for the provider.
        """
        if self._settings.revoke_url is None:
            return None
        try:
            status, _, _ = await self._post(
                self._settings.revoke_url, {"token": token, "token_type_hint": hint}
            )
        except ProviderUnavailable as error:
            _log.warning("the provider did not confirm a revocation: %s", error.reason)
            return False
        return status == HTTPStatus.OK

    async def _ask_for_tokens(self, body: dict[str, str]) -> Grant:
        status, headers, answer = await self._post(self._settings.token_url, body)
        _log.debug("the provider answered %d to %s", status, body["grant_type"])
        if 200 <= status < 300 and not is_error(answer):
            # RFC 6749 §5.1 says 200, but any success has spent the token and may hold the next one.
            return parse_grant(answer)
        raise self._failure(status, headers, answer)

    async def _post(
        self, url: str, body: dict[str, str]
    ) -> tuple[int, httpx.Headers, Mapping[str, Any] | None]:
        # RFC 6749 §2.3: not more than one way to authenticate in a request.
        fields = {**body, **({} if self._auth is not None else self._own_fields())}
        as_json = self._settings.body == "json"
        request = self._client.build_request(
            "POST",
            url,
            json=fields if as_json else None,
            data=None if as_json else fields,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=self._settings.token_timeout,
            extensions={OF_THE_PROVIDER: True},
        )
        came = _Came()
        try:
            # httpx limits the wait for each piece; a server that drips bytes is limited here.
            async with asyncio.timeout(self._settings.token_timeout):
                # A redirect would carry the token to a host nobody configured.
                response = await self._client.send(
                    request, stream=True, auth=self._auth, follow_redirects=False
                )
                try:
                    return response.status_code, response.headers, await _read(response, came)
                finally:
                    await response.aclose()
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.UnsupportedProtocol,
        ) as error:
            raise ProviderUnavailable(
                f"The provider cannot be reached at {_host(url)} ({type(error).__name__}). Check the "
                "network and claude_oauth.provider; it is tried again later.",
                reason="network",
            ) from None
        except (TimeoutError, httpx.TimeoutException):
            if came.status is not None and (answer := came.members(whole=False)) is not None:
                # All of it is there, and only its end was not told.
                return came.status, came.headers, answer
            raise ProviderUnavailable(
                f"The provider at {_host(url)} did not answer within {self._settings.token_timeout:g} s. "
                "It is tried again later.",
                reason="timeout",
                maybe_spent=True,
            ) from None
        except httpx.HTTPError as error:
            raise ProviderUnavailable(
                f"The connection to the provider at {_host(url)} broke off ({type(error).__name__}). "
                "It is tried again later.",
                reason="answer_lost",
                maybe_spent=True,
            ) from None

    def _own_fields(self) -> dict[str, str]:
        """The client's id, and its secret where it has one, as members of the body (RFC 6749 §2.3.1)."""
        secret = self._settings.client_secret
        return {"client_id": self.client_id, **({} if secret is None else {"client_secret": secret})}

    def _failure(
        self, status: int, headers: httpx.Headers, answer: Mapping[str, Any] | None
    ) -> InvalidGrant | ProviderRefused | ProviderUnavailable:
        host = _host(self._settings.token_url)
        wait = retry_after(headers.get("retry-after"), self._clock())
        if status == HTTPStatus.NOT_FOUND or 300 <= status < 400:
            return ProviderUnavailable(
                f"The token endpoint at {host} answered {status}: that is the wrong host or path, and says "
                "nothing about the login. Correct claude_oauth.provider.token_url.",
                reason="wrong_host",
                retry_after=wait,
            )
        if status in _TRY_LATER:
            return ProviderUnavailable(
                f"The provider at {host} asks to be left in peace (HTTP {status}). It is tried again later.",
                reason="rate_limited" if status == HTTPStatus.TOO_MANY_REQUESTS else f"http_{status}",
                retry_after=wait,
            )
        if status == HTTPStatus.GATEWAY_TIMEOUT:
            # A gateway that gave up waiting may have passed the request on.
            return ProviderUnavailable(
                f"The provider behind {host} did not answer in time (HTTP 504). It is tried again later.",
                reason="timeout",
                retry_after=wait,
                maybe_spent=True,
            )
        if status < HTTPStatus.INTERNAL_SERVER_ERROR and is_dead(answer):
            # Some answer 200 or 401. What another host, a limit or a fault has added to it says nothing.
            return InvalidGrant("The provider refused the grant (invalid_grant).")
        error = error_code(answer)
        if status < HTTPStatus.INTERNAL_SERVER_ERROR and error in _BUSY_WORDS:
            return ProviderUnavailable(
                f"The provider at {host} cannot answer now ({error}). It is tried again later.",
                reason=error,
                retry_after=wait,
                maybe_spent=error == "server_error",
            )
        if status < HTTPStatus.INTERNAL_SERVER_ERROR and error is not None:
            return ProviderRefused(
                f"The provider at {host} refused the request ({error}, HTTP {status}). "
                "Check client_id, client_secret, client_authentication and scopes in claude_oauth.provider.",
                error=error,
            )
        # It may have broken down on the way back, after the token was used up; one that is busy did nothing.
        broke_down = status < 300 or (status >= 500 and status not in _BUSY)
        return ProviderUnavailable(
            f"The provider at {host} answered HTTP {status} without a usable reason. "
            "It is tried again later.",
            reason="server_error" if broke_down else f"http_{status}",
            retry_after=wait,
            maybe_spent=broke_down,
        )


def _basic(settings: ProviderSettings) -> httpx.BasicAuth:
    """Id and secret in the Authorization header, each encoded as in a form first (RFC 6749 §2.3.1)."""
    return httpx.BasicAuth(quote_plus(settings.client_id), quote_plus(settings.client_secret or ""))


@dataclass(slots=True)
class _Came:
    """What has come of an answer so far."""

    status: int | None = None
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    content: bytearray = field(default_factory=bytearray, repr=False)

    def members(self, *, whole: bool) -> Mapping[str, Any] | None:
        """What it says, or None if that is nothing."""
        encoding, kind = (self.headers.get(name, "") for name in ("content-encoding", "content-type"))
        return members(bytes(self.content), encoding, kind, whole=whole)


async def _read(response: httpx.Response, came: _Came) -> Mapping[str, Any] | None:
    """What the answer says, or None if it is too long or says nothing.

    Raises httpx.HTTPError if the connection breaks off before all of it has come.
    """
    came.status, came.headers = response.status_code, response.headers
    try:
        async for piece in response.aiter_raw():
            came.content += piece
            if len(came.content) > MAX_ANSWER_BYTES:
                came.content.clear()
                return None
    except httpx.TimeoutException:
        raise
    except httpx.HTTPError:
        answer = came.members(whole=False)
        if answer is None:
            raise
        return answer
    return came.members(whole=True)


def _host(url: str) -> str:
    return urlsplit(url).netloc
