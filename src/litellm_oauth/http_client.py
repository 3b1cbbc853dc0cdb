"""The HTTP clients of this package: pooled, and without a memory of whom they last spoke for."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx


def http_client(**options: Any) -> httpx.AsyncClient:
    """A client with httpx's ``options`` that keeps no cookies.

    What a server sets for one user must not go out with another one's token.
    """
    return httpx.AsyncClient(cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])), **options)
