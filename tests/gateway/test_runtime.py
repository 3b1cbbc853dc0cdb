"""What a user's request goes out with: their token, or the operator's key, and when it is which."""

from __future__ import annotations

from typing import cast

import pytest

from litellm_oauth.errors import (
    CoolingDown,
    LitellmOAuthError,
    NotLoggedIn,
    ReauthRequired,
    SettingsError,
    StorageUnavailable,
    Unreadable,
)
from litellm_oauth.gateway.runtime import ApiKey, Runtime
from litellm_oauth.service import TokenService
from litellm_oauth.settings import parse_settings
from litellm_oauth.tokens import AccessToken

TOKEN = AccessToken("sk-ant-oat01-x", 1, 1e12)
KEY = "obviously-fake-api-key"


class Service:
    def __init__(self, trouble: LitellmOAuthError | None) -> None:
        self._trouble = trouble

    async def access_token(self, user: str) -> AccessToken:
        if self._trouble is not None:
            raise self._trouble
        return TOKEN


def runtime(trouble: LitellmOAuthError | None = None, **environ: str) -> Runtime:
    section = {"sandbox": True, "enabled": False, "fallback_to_api_key": {"moving": "os.environ/PLAIN"}}
    return Runtime(parse_settings(section, {}), cast(TokenService, Service(trouble)), environ)


async def test_who_has_a_login_goes_with_their_own_token() -> None:
    assert await runtime(PLAIN=KEY).credential("alice", "moving") == TOKEN


async def test_who_has_none_goes_with_the_model_s_key_if_it_has_one_for_them() -> None:
    without = runtime(NotLoggedIn("no login"), PLAIN=KEY)
    assert await without.credential("alice", "moving") == ApiKey(KEY)
    for model in ("another", None):
        with pytest.raises(NotLoggedIn):
            await without.credential("alice", model)


@pytest.mark.parametrize(
    "trouble",
    [
        ReauthRequired("dead"),
        CoolingDown("resting", retry_after=1),
        StorageUnavailable("down"),
        Unreadable("damaged"),
    ],
    ids=lambda error: error.code,
)
async def test_a_dead_login_or_a_fault_is_no_reason_for_the_key(trouble: LitellmOAuthError) -> None:
    with pytest.raises(type(trouble)):
        await runtime(trouble, PLAIN=KEY).credential("alice", "moving")


def test_a_key_that_is_not_there_is_missed_at_start() -> None:
    runtime(PLAIN=KEY).demand_keys()
    for missing in (runtime(), runtime(PLAIN="")):
        with pytest.raises(SettingsError, match="PLAIN is not set"):
            missing.demand_keys()


def test_no_key_is_in_a_repr() -> None:
    assert KEY not in repr(ApiKey(KEY)) + repr(runtime(PLAIN=KEY))
