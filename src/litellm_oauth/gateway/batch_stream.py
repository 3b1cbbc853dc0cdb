"""A batch of messages on its way to the API: read and checked as it goes through, never held as a whole.

The text is cut where its parts end: a member of the object, or some of the requests. Each part is read as
any other body is, has its models named as the API knows them, and goes on: nothing arrives that has not been
read. The brackets that close the batch follow when all of it has come and is good; without them it is no
request to the API.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from starlette.types import Receive

from ..errors import InvalidInput
from .body_memory import UNCOUNTED, HeldMemory
from .errors import BodyTooLarge
from .request_body import (
    DOUBLED,
    MAX_DEPTH,
    MEGABYTE,
    Body,
    NotJson,
    TooDeep,
    Upload,
    json_body,
)

# Requests go on together until there is so much of them.
_TOGETHER = 16 * 1024
# How much is looked through before others have their turn.
_AT_ONCE = 16 * 1024
# How much may stand beside the requests, or come before the first model, and under how many keys.
_BESIDE = MEGABYTE
_KEYS = 100
_REQUESTS = "requests"
_BLANKS = b" \t\r\n"
_QUOTE = b'"'
_NO_OBJECT = "The body is not a JSON object in UTF-8."
_BRACKETS = rb'"\[\]{}'


def _passing(marks: bytes, depth: int) -> bytes:
    """What is passed over in a text without escapes.

    All but these marks, and those in whole texts and in brackets that are closed again, so deep.
    """
    whole = rb'"[^"]*+"' + (rb"|[\[{]" + _passing(_BRACKETS, depth - 1) + rb"[\]}]" if depth else b"")
    plain = b"[^" + marks + b"]*+"
    return plain + b"(?:(?:" + whole + b")" + plain + b")*+"


# Up to the next mark of a level: of its end, or of a part that begins or ends.
_TO_A_MARK = re.compile(_passing(_BRACKETS + b",", 0))
# As far as possible: as deep as requests usually are.
_FAR = re.compile(_passing(_BRACKETS, 8))

Names = Callable[[Body], Mapping[str, str]]
T = TypeVar("T")


class _Place(Enum):
    """Where in a batch its text has come to."""

    BEFORE = "before the object"
    MEMBERS = "among its members"
    REQUESTS = "among the requests"
    BEHIND = "behind the requests"
    AFTER = "after the object"


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the batch. ``before``: what stands between it and the last one.

    ``content`` is an object with nothing else in it; the piece begins behind the first ``opening``.
    """

    before: bytes
    content: bytes = field(repr=False)
    opening: bytes
    closing: bytes

    def of(self, content: bytes) -> bytes:
        """What goes on, with this for its content."""
        start = content.index(self.opening) + len(self.opening)
        return b"".join((self.before, memoryview(content)[start : -len(self.closing)]))


class _Cutter:
    """Cuts the text. ``largest``: how large a request may be, in bytes. Raises InvalidInput, BodyTooLarge."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._place = _Place.BEFORE
        self._keys: set[str] = set()
        # What has come of the part that is not whole yet.
        self._pieces: list[bytes] = []
        self._size = 0
        # How deep in it the text has come to.
        self._depth = 0
        self._in_text = False
        self._half_escape = b""
        self._beside = 0
        self._before = b""

    @property
    def held(self) -> int:
        """How much has come of a part that is not whole yet, in bytes."""
        return self._size

    def cut(self, data: bytes) -> list[_Part]:
        """The parts that are whole now that this has come as well."""
        data = self._half_escape + data
        end = len(data) - (len(data) - len(data.rstrip(b"\\"))) % 2
        data, self._half_escape = data[:end], data[end:]
        # The same text without escapes, so that a quotation mark is one.
        plain = data.replace(rb"\\", b"  ").replace(rb"\"", b"  ") if b"\\" in data else data
        parts: list[_Part] = []
        start = at = 0
        while (at := self._mark(plain, at)) < end:
            token = data[at : at + 1]
            if token == _QUOTE:
                self._in_text = True
            elif self._depth or (self._place is _Place.REQUESTS and token in b"{["):
                self._depth += 1 if token in b"{[" else -1
                if self._depth > MAX_DEPTH:
                    raise TooDeep
            else:
                self._keep(data[start:at])
                start = at + 1
                parts += self._cut_at(token)
            at += 1
        self._keep(data[start:])
        if self._place is not _Place.REQUESTS:
            _refuse_beside(self._beside + self._size)
        elif self._size > self._largest + 4 * _TOGETHER:
            # Others may have come with it.
            raise BodyTooLarge(self._largest // MEGABYTE, "A request of the batch")
        return parts

    def _mark(self, plain: bytes, at: int) -> int:
        """Where from here the next mark is that counts, or the end. A quotation mark begins half a text."""
        if self._in_text:
            quote = plain.find(_QUOTE, at)
            if quote < 0:
                return len(plain)
            self._in_text = False
            at = quote + 1
        far = self._depth or (self._place is _Place.REQUESTS and self._size + at < _TOGETHER)
        found = (_FAR if far else _TO_A_MARK).match(plain, at)
        return at if found is None else found.end()

    def end(self) -> bytes:
        """What closes the batch, now that all of it has come."""
        if self._place is not _Place.AFTER or self._half_escape:
            raise NotJson(_NO_OBJECT)
        _refuse_text(self._taken())
        return self._before

    def _cut_at(self, token: bytes) -> list[_Part]:
        """What has been cut off by this mark, which belongs to no part."""
        text = self._taken()
        parts: list[_Part] = []
        before = token
        if self._place is not _Place.REQUESTS:
            self._beside += len(text) + 1
            _refuse_beside(self._beside)
        match self._place, token:
            case _Place.BEFORE, b"{":
                _refuse_text(text)
                self._place = _Place.MEMBERS
            case _Place.MEMBERS, b"[" if self._key(text + b"[]") == _REQUESTS:
                self._add(_REQUESTS)
                self._place = _Place.REQUESTS
                before = text + token
            case _Place.MEMBERS, b"[" | b"{":
                self._keep(text + token)
                self._beside -= len(text) + 1
                self._depth = 1
                before = b""
            case (_Place.MEMBERS, b",") | (_Place.MEMBERS, b"}"):
                if self._keys or token == b"," or text.strip(_BLANKS):
                    parts.append(self._member(text))
                self._place = _Place.AFTER if token == b"}" else _Place.MEMBERS
            case _Place.REQUESTS, b",":
                parts.append(self._some_requests(text))
            case _Place.REQUESTS, b"]":
                if not self._before.endswith(b"[") or text.strip(_BLANKS):
                    parts.append(self._some_requests(text))
                self._place = _Place.BEHIND
            case (_Place.BEHIND, b",") | (_Place.BEHIND, b"}"):
                _refuse_text(text)
                self._place = _Place.AFTER if token == b"}" else _Place.MEMBERS
            case _:
                raise NotJson(_NO_OBJECT)
        self._before += before
        return parts

    def _member(self, text: bytes) -> _Part:
        key = self._key(text)
        if key == _REQUESTS:
            raise InvalidInput("The requests of a batch are a list.")
        self._add(key)
        return self._part(b"{", text, b"}")

    def _some_requests(self, text: bytes) -> _Part:
        return self._part(b'{"requests":[', text, b"]}")

    def _part(self, opening: bytes, text: bytes, closing: bytes) -> _Part:
        before, self._before = self._before, b""
        return _Part(before, b"".join((opening, text, closing)), opening[-1:], closing)

    def _key(self, member: bytes) -> str:
        document = json_body(b"{" + member + b"}").document or {}
        if len(document) != 1:
            raise NotJson(_NO_OBJECT)
        return next(iter(document))

    def _add(self, key: str) -> None:
        if key in self._keys:
            raise InvalidInput(DOUBLED)
        if len(self._keys) == _KEYS:
            raise InvalidInput(f"A batch holds more than {_KEYS} keys at its top level.")
        self._keys.add(key)

    def _keep(self, text: bytes) -> None:
        if text:
            self._pieces.append(text)
            self._size += len(text)

    def _taken(self) -> bytes:
        text = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._size = [], 0
        return text


def _refuse_beside(size: int) -> None:
    if size > _BESIDE:
        raise BodyTooLarge(_BESIDE // MEGABYTE, "What a batch holds beside its requests")


def _refuse_text(text: bytes) -> None:
    if text.strip(_BLANKS):
        raise NotJson(_NO_OBJECT)


def _check(part: Mapping[str, Any]) -> None:
    requests = part.get(_REQUESTS)
    if len(part) != 1 or requests == []:
        raise NotJson(_NO_OBJECT)
    if requests is not None and not all(isinstance(one, dict) for one in requests):
        raise InvalidInput("Each request of a batch has to be a JSON object.")


class BatchStream(Upload):
    """A batch of messages that goes through, and once.

    ``largest``: how large one of its requests may be, in bytes. ``memory`` holds one that is large. While it
    goes through, it raises InvalidInput and what ``Upload``, ``HeldMemory`` and the one who names its models
    raise.
    """

    def __init__(
        self, receive: Receive, declared: int | None, limit: int, *, largest: int, memory: HeldMemory
    ) -> None:
        super().__init__(receive, declared, limit)
        self._largest = largest
        self._wanted = largest if declared is None else min(declared, largest)
        self._memory = memory
        self._ahead: list[bytes] = []
        self._names_a_model = False

    async def begin(self, names: Names) -> None:
        """Read on to the first model, of which ``names`` knows where the batch goes.

        ``names`` is asked for the API's names of the models in each part, and refuses what must not go on.
        """
        self._parts = self._checked(names)
        size = 0
        async for part in self._parts:
            self._ahead.append(part)
            size += len(part)
            if self._names_a_model:
                return
            if size > _BESIDE:
                break
        raise InvalidInput("The body names no model. Send it as JSON, with a model in each request.")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._ahead:
            yield self._ahead.pop(0)
        async for part in self._parts:
            yield part

    async def _checked(self, names: Names) -> AsyncGenerator[bytes, None]:
        cutter = _Cutter(self._largest)
        async for piece in super().__aiter__():
            for start in range(0, len(piece), _AT_ONCE):
                parts = cutter.cut(piece[start : start + _AT_ONCE])
                while parts:
                    yield await self._passed(parts.pop(0), names)
                    self._memory.release()
                if cutter.held > UNCOUNTED:
                    await self._memory.hold(self._wanted)
                await asyncio.sleep(0)
        yield cutter.end()

    async def _passed(self, part: _Part, names: Names) -> bytes:
        """The part as it goes on."""
        body = await _run(len(part.content), lambda: json_body(part.content))
        _check(body.document or {})
        known = names(body)
        self._names_a_model = self._names_a_model or bool(known)
        return await _run(len(part.content), lambda: part.of(body.named(known)))


async def _run(size: int, work: Callable[[], T]) -> T:
    """Do it, beside the others' work if that is much of it."""
    return work() if size <= UNCOUNTED else await asyncio.to_thread(work)
