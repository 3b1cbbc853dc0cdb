"""A row as a store hands it over, for tests of what is made of one."""

from __future__ import annotations

from litellm_oauth.stores import ProviderState, RowStatus, TokenRow

NOW = 1000.0
ROW = TokenRow(
    user_id="alice",
    access_token="sealed",
    refresh_token="sealed",
    expires_at=NOW + 3600,
    refresh_expires_at=None,
    scopes=(),
    account=None,
    generation=3,
    status=RowStatus.ACTIVE,
    last_error=None,
    next_attempt_at=None,
    attempt_id=None,
    attempt_host=None,
    refresh_count=0,
    forced_today=0,
    logged_in_at=NOW - 60,
    updated_at=NOW,
    leased_for=0.0,
    in_doubt=False,
    read_at=NOW,
    provider=ProviderState(),
    source="database",
)
