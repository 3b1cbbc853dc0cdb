"""Tells an answer of the API from what something else sends at its address.

A proxy in front of the API, a captive portal or a wrong address answers with a page for people, with any
status. Read as the API's answer it would be an empty message, or an error that says nothing.
"""

from __future__ import annotations

import re

import httpx

from ..grant import retry_after
from .errors import NotTheApi, RedirectedAnswer

_PAGES = ("text/html", "application/xhtml+xml")
# Where the API hands out what users have stored, of any kind.
_FILES = re.compile(r"/v1/(?:files|skills)/")
# No call of a model is answered with these.
_MODELS = re.compile(r"/v1/(?:messages(?:/count_tokens)?|complete)$")
_NO_MESSAGES = re.compile(
    r"(?:image|audio|video|font)/.*|(?:text|application)/(?:.+\+)?(?:xml|pdf|javascript|css|zip)"
)
_NAME = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,60}")


def demand_the_api(request: httpx.Request, answer: httpx.Response, now: float) -> None:
    """Raises RedirectedAnswer or NotTheApi for an answer that must not be used; its body is not read.

    ``now``: seconds since the epoch.
    """
    host, status = request.url.host, answer.status_code
    if answer.has_redirect_location:
        raise RedirectedAnswer(host, status)
    if status == httpx.codes.UNAUTHORIZED:
        # A 401 is about the credential (RFC 9110 §15.5.2), in any form: the token is replaced.
        return
    header = answer.headers.get("content-type", "")
    kind = header.partition(";")[0].strip().lower()
    path = request.url.path
    page = kind in _PAGES and not (answer.is_success and _FILES.search(path))
    other = _MODELS.search(path) is not None and _NO_MESSAGES.fullmatch(kind) is not None
    if page or other:
        wait = retry_after(answer.headers.get("retry-after"), now)
        raise NotTheApi(host, status, kind if _NAME.fullmatch(kind) else "something else", wait)
