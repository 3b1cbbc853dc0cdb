"""Whose a gateway key is, where LiteLLM has no database that could say so.

Named in config.yaml as ``general_settings.custom_auth: litellm_oauth.gateway.keys.authenticate``. The keys
are those of ``litellm_oauth_users`` in the inventory; their digests come with the settings. All other keys,
the master key among them, are LiteLLM's to judge. Proven on LiteLLM 1.106.2.
"""

from __future__ import annotations

import hmac

from fastapi import Request
from litellm.proxy._types import LitellmUserRoles, ProxyErrorTypes, ProxyException, UserAPIKeyAuth

from ..errors import InvalidInput
from .hook import oauth_hook
from .identity import USER_HEADER, named_in_header
from .key_digest import digest

UNKNOWN_KEY = "The gateway does not know this key. Send the master key or a user's key as a bearer token."


async def authenticate(request: Request, api_key: str | None) -> UserAPIKeyAuth | str:
    """The user behind a key of ours; a text has LiteLLM go on and judge the key itself.

    Which routes a key opens is decided before (``middleware``). Raises ProxyException: 401 for a key that
    nobody can know, where LiteLLM alone would answer 400 or 500; 400 for two names of a user, of which
    LiteLLM's routes would take the last one.
    """
    key = api_key or ""
    runtime = oauth_hook.runtime.filled
    user = None if runtime is None else runtime.settings.user_keys.get(digest(key))
    if user is None and key and not _litellm_may_know(key):
        raise _refused(UNKNOWN_KEY, 401)
    if not key:
        # LiteLLM refuses it; who has no key learns nothing about what they sent.
        return key
    try:
        named_in_header(request.headers.getlist(USER_HEADER))
    except InvalidInput as error:
        raise _refused(error.message, 400) from None
    if user is not None:
        return UserAPIKeyAuth(api_key=key, user_id=user, user_role=LitellmUserRoles.INTERNAL_USER)
    return key


def _refused(message: str, status: int) -> ProxyException:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None  # RFC 9110 §11.6.1
    return ProxyException(message, ProxyErrorTypes.auth_error, None, status, headers)


def _litellm_may_know(key: str) -> bool:
    from litellm.proxy import proxy_server

    if proxy_server.prisma_client is not None or proxy_server.master_key is None:
        return True
    return hmac.compare_digest(key.encode("utf-8", "surrogatepass"), proxy_server.master_key.encode())
