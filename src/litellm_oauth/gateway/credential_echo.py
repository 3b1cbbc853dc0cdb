"""Overwrites the credential of a request where the API's error quotes it.

The error goes to the client and into logs, and the credential is an operator's, or a token that no client of
the gateway gets to see.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterator

import httpx

_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
_SCHEME = "bearer "
# What is shorter is no secret, and may stand in any sentence.
_SHORTEST = 8


def credentials_of(request: httpx.Request) -> set[str]:
    """The credentials that a request carries, without a scheme before them (RFC 6750 §2.1)."""
    sent = (request.headers.get(name, "") for name in _HEADERS)
    return {
        value[len(_SCHEME) :].strip() if value[: len(_SCHEME)].lower() == _SCHEME else value
        for value in sent
        if value
    }


def overwrite_in(answer: httpx.Response, request: httpx.Request) -> None:
    """Have nobody who reads this error find the credentials of the request in it. Its length stays."""
    secrets = {form for one in credentials_of(request) if len(one) >= _SHORTEST for form in _forms(one)}
    if not secrets:
        return
    if hasattr(answer, "_content"):
        answer._content = _overwritten(answer._content, secrets)
    elif isinstance(answer.stream, httpx.AsyncByteStream):
        answer.stream = _AsyncStream(answer.stream, secrets)
    elif isinstance(answer.stream, httpx.SyncByteStream):
        answer.stream = _Stream(answer.stream, secrets)


def _forms(secret: str) -> Iterator[bytes]:
    """The secret as it is, and as JSON may have it (RFC 8259 §7)."""
    yield secret.encode("latin-1", "replace")
    escaped = json.dumps(secret)[1:-1]
    yield escaped.encode()
    yield escaped.replace("/", "\\/").encode()


def _overwritten(content: bytes, secrets: Collection[bytes]) -> bytes:
    for secret in secrets:
        content = content.replace(secret, b"*" * len(secret))
    return content


class _Overwriter:
    """Works piece by piece: holds back as much as may be the beginning of a secret."""

    def __init__(self, secrets: Collection[bytes]) -> None:
        self._secrets = secrets
        self._longest = max(map(len, secrets))
        self._held = b""

    def add(self, piece: bytes) -> bytes:
        held = _overwritten(self._held + piece, self._secrets)
        end = max(0, len(held) - self._longest + 1)
        self._held = held[end:]
        return held[:end]

    def rest(self) -> bytes:
        return self._held


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, secrets: Collection[bytes]) -> None:
        self._stream = stream
        self._overwriter = _Overwriter(secrets)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            if ready := self._overwriter.add(piece):
                yield ready
        if rest := self._overwriter.rest():
            yield rest

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Stream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, secrets: Collection[bytes]) -> None:
        self._stream = stream
        self._overwriter = _Overwriter(secrets)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            if ready := self._overwriter.add(piece):
                yield ready
        if rest := self._overwriter.rest():
            yield rest

    def close(self) -> None:
        self._stream.close()
