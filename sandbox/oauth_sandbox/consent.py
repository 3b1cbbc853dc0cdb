"""Proof that a consent form was sent by the page that showed it, in the same browser, once.

The form token binds the browser's session cookie, the authorization request, a time limit and a nonce.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from .clock import Clock

FORM_SECONDS = 600
_SESSION = re.compile(r"[A-Za-z0-9_-]{32}")
_DEADLINE = re.compile(r"[0-9]{1,12}")


class ConsentForms:
    """Issues form tokens and takes each back once. A restart of the sandbox makes all of them void."""

    def __init__(self, clock: Clock) -> None:
        self._key = secrets.token_bytes(32)
        self._clock = clock
        self._used: dict[str, float] = {}

    def session(self, cookie: str | None) -> str:
        """The browser's session: the one it came with, or a new one."""
        return cookie if cookie and _SESSION.fullmatch(cookie) else secrets.token_urlsafe(24)

    def issue(self, session: str, query: str) -> str:
        nonce, deadline = secrets.token_urlsafe(12), int(self._clock.now()) + FORM_SECONDS
        return f"{nonce}.{deadline}.{self._signature(nonce, deadline, session, query)}"

    def redeem(self, token: str, session: str | None, query: str) -> bool:
        """True once for a token that was issued for this session and this authorization request, in time."""
        nonce, _, rest = token.partition(".")
        deadline, _, signature = rest.partition(".")
        if session is None or not _DEADLINE.fullmatch(deadline):
            return False
        if not hmac.compare_digest(
            signature.encode(), self._signature(nonce, int(deadline), session, query).encode()
        ):
            return False
        now = self._clock.now()
        self._used = {used: until for used, until in self._used.items() if until > now}
        if int(deadline) <= now or nonce in self._used:
            return False
        self._used[nonce] = int(deadline)
        return True

    def _signature(self, nonce: str, deadline: int, session: str, query: str) -> str:
        parts = (nonce, str(deadline), session, query)
        message = b"".join(hashlib.sha256(part.encode()).digest() for part in parts)
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()
