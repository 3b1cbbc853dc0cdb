"""A request's body: read under a limit, and looked into once, so that all readers see the same."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from starlette.types import Message, Receive

from ..errors import InvalidInput
from .body_memory import UNCOUNTED, HeldMemory
from .errors import BodyTooLarge, BodyTooSlow

MEGABYTE = 1 << 20
MAX_DEPTH = 200
# Three bytes of JSON may take a hundred of memory: a body of the largest size that is all small lists takes
# more than a worker has. A long conversation has some ten thousand parts; the API takes 100,000 messages.
_MOST_PARTS = 1_000_000
# LiteLLM looks at each part for some ten microseconds, while nobody else is served, and keeps it in copies.
_MOST_PARTS_TRANSLATED = 100_000
_PART_WEIGHT = 64
# A text; the beginning of a list or an object; what stands between two values.
_PARTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[,\[{]', re.DOTALL)
# How fast a body comes at least that has its share of the memory, in bytes a second, after a while of grace.
_PACE, _GRACE = 64 * 1024, 20.0
DOUBLED = "An object in the body holds the same key twice. Send each key once."
# Beside the top level, the places where a body of the Messages API names a model.
_LISTS_OF_MODELS = ("fallbacks", "tools")
# What JSON is read as that holds more of it.
_HOLDING = (dict, list)
_MODEL = b'"model"'
_MODEL_AND_NAME = re.compile(rb'("model"\s*+:\s*+)("(?:[^"\\]++|\\.)*+")')
# Any of its letters.
_ESCAPED_MODEL = re.compile(rb"\\u006[45CcDdFf]")


class NotJson(InvalidInput):
    """What was sent is no JSON at all."""


class TooDeep(InvalidInput):
    """Objects and lists in each other, more of them than a body of the API ever needs."""

    def __init__(self) -> None:
        super().__init__(f"The body is nested more than {MAX_DEPTH} levels deep.")


class ClientGone(Exception):  # noqa: N818 -- not an error: the client has left
    """The client closed the connection before the whole body had come."""


async def read(receive: Receive, declared: int | None, limit: int, memory: HeldMemory) -> bytes:
    """The whole body. ``declared``: its Content-Length. ``limit``: how large it may be, in bytes.

    Raises BodyTooLarge before more than that has been kept, TooManyBodies, BodyTooSlow, ClientGone.
    """
    if declared is not None:
        refuse_over(declared, limit)
        await memory.hold(declared)
    pieces: list[bytes] = []
    size = 0
    clock = asyncio.get_running_loop().time
    begun = clock()
    while True:
        message = await _in_time(receive, begun + _GRACE + size / _PACE if memory.is_held else None)
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        refuse_over(size, limit)
        if size > UNCOUNTED and not memory.is_held:
            await memory.hold(limit)
            begun = clock()
        if piece:
            pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _in_time(receive: Receive, deadline: float | None) -> Message:
    """The next part. Others wait for the memory that the whole has."""
    if deadline is None:
        return await receive()
    try:
        async with asyncio.timeout_at(deadline):
            return await receive()
    except TimeoutError:
        raise BodyTooSlow from None


class Upload:
    """A body that goes through piece by piece, and once. ``limit``: how large it may be, in bytes.

    Raises BodyTooLarge at once if it is declared to be larger, or when more than that has come; ClientGone.
    """

    def __init__(self, receive: Receive, declared: int | None, limit: int) -> None:
        if declared is not None:
            refuse_over(declared, limit)
        self._receive = receive
        self._limit = limit
        self._size = 0
        self._is_read = False
        self._read = _do_nothing

    def when_read(self, then: Callable[[], None]) -> None:
        """Call this once nothing of the body is left to come."""
        self._read = then
        if self._is_read:
            then()

    async def receive(self) -> Message:
        """The next part, as a server hands it on."""
        message = await self._receive()
        self._size += len(message.get("body", b""))
        refuse_over(self._size, self._limit)
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece
        self._is_read = True
        self._read()


def _do_nothing() -> None:
    pass


def refuse_over(size: int, limit: int) -> None:
    """Raises BodyTooLarge."""
    if size > limit:
        raise BodyTooLarge(limit // MEGABYTE)


def parse_json(content: bytes) -> Any:
    """What a JSON text says (RFC 8259). Raises InvalidInput for what two readers could read differently.

    That is a doubled key at any depth, bytes that are not UTF-8, numbers that are no numbers, and half a
    surrogate pair, besides what is no JSON at all. What has too many parts is not read.
    """
    _refuse_many_parts(content)
    try:
        text = content.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
        )
        if b"\\ud" in content or b"\\uD" in content:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _DoubledKeyError:
        raise InvalidInput(DOUBLED) from None
    except (ValueError, RecursionError):
        raise NotJson("The body is not JSON in UTF-8.") from None
    if content.count(b"{") + content.count(b"[") > MAX_DEPTH and _is_deep(value):
        raise TooDeep
    return value


def refuse_doubled_keys(content: bytes) -> None:
    """Raises InvalidInput for JSON with a doubled key, or too many parts.

    What is no JSON is somebody else's to judge.
    """
    _refuse_many_parts(content)
    try:
        json.loads(content, object_pairs_hook=_object)
    except _DoubledKeyError:
        raise InvalidInput(DOUBLED) from None
    except (ValueError, RecursionError):
        return


def refuse_to_translate_many_parts(content: bytes) -> None:
    """Raises InvalidInput for what LiteLLM would translate for so long that others notice."""
    _refuse_many_parts(content, _MOST_PARTS_TRANSLATED, ", which is too many to be translated")


def _refuse_many_parts(content: bytes, most: int = _MOST_PARTS, why: str = "") -> None:
    """Raises InvalidInput. It looks at the bytes alone: what has been read takes the memory already."""
    if _parts_at_most(content) <= most:
        return
    # Many of these may stand inside a text, which is one part.
    if next(islice(_PARTS.finditer(content), most, None), None) is not None:
        raise InvalidInput(
            f"The body has more than {most:,} parts (texts, lists, objects, and commas between them){why}. "
            "Send it in several requests."
        )


def weight(content: bytes) -> int:
    """What a body counts for where copies are made of what it says: its size, and something for each part."""
    parts = _parts_at_most(content)
    if _PART_WEIGHT * parts > len(content):
        # Many of these may stand inside a text, which is one part.
        parts = sum(1 for _ in islice(_PARTS.finditer(content), _MOST_PARTS_TRANSLATED))
    return len(content) + _PART_WEIGHT * parts


def _parts_at_most(content: bytes) -> int:
    return sum(map(content.count, (b",", b"[", b"{", b'"')))


class _DoubledKeyError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DoubledKeyError
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _is_deep(value: Any) -> bool:
    level = [value] if type(value) in _HOLDING else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _HOLDING
        ]
        if not level:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Body:
    """What a client sent. ``document`` is the JSON object in it, if it is one."""

    content: bytes = field(repr=False)
    document: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def model(self) -> str | None:
        """The model that it names at its top level."""
        return None if self.document is None else _name(self.document.get("model"))

    @property
    def models(self) -> frozenset[str]:
        """All models that it names where the API reads one: also in fallbacks, tools, a batch's requests."""
        return frozenset(
            name for holder in _holders(self.document or {}) if (name := _name(holder.get("model")))
        )

    def named(self, names: Mapping[str, str]) -> bytes:
        """The body with the API's own names of the models; the bytes that came if it has these already."""
        if self.document is None:
            return self.content
        sent = [name for holder in _holders(self.document) if (name := _name(holder.get("model")))]
        if all(names.get(model, model) == model for model in set(sent)):
            return self.content
        spliced = _spliced(self.content, len(sent), names)
        if spliced is not None:
            return spliced
        return json.dumps(_renamed(self.document, names), ensure_ascii=False, allow_nan=False).encode()


def json_body(content: bytes) -> Body:
    """A body that has to be a JSON object. Raises InvalidInput."""
    document = parse_json(content) if content else None
    if not isinstance(document, dict):
        raise InvalidInput("The body is not a JSON object in UTF-8.")
    return Body(content, document)


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _holders(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects of a body whose ``model`` the API reads."""
    yield document
    for name in _LISTS_OF_MODELS:
        listed = document.get(name)
        yield from (one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict))
    for params in requests_of(document):
        yield from _holders(params)


def requests_of(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a batch asks, request by request."""
    requests = document.get("requests")
    for one in requests if isinstance(requests, list) else ():
        if isinstance(one, dict) and isinstance(one.get("params"), dict):
            yield one["params"]


def _renamed(document: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    new = dict(document)
    model = _name(new.get("model"))
    if model is not None:
        new["model"] = names.get(model, model)
    for name in _LISTS_OF_MODELS:
        if isinstance(new.get(name), list):
            new[name] = renamed_in(new[name], names)
    if isinstance(new.get("requests"), list):
        new["requests"] = [
            {**one, "params": _renamed(one["params"], names)}
            if isinstance(one, dict) and isinstance(one.get("params"), dict)
            else one
            for one in new["requests"]
        ]
    return new


def renamed_in(listed: Iterable[Any], names: Mapping[str, str]) -> list[Any]:
    """The list with the API's names of the models that its objects name."""
    return [
        one
        if not isinstance(one, dict) or (model := _name(one.get("model"))) is None
        else {**one, "model": names.get(model, model)}
        for one in listed
    ]


def _spliced(content: bytes, places: int, names: Mapping[str, str]) -> bytes | None:
    """The bytes with the names exchanged in their places; None if they do not show clearly where these are.

    ``places``: how many there are. A quotation mark inside a text has a backslash before it, so ``"model"``
    is a whole text or the end of one. Where none is written with escapes and there are no more than places,
    each is the key in one of them.
    """
    if content.count(_MODEL) != places or _ESCAPED_MODEL.search(content):
        return None

    known: dict[bytes, bytes] = {}

    def exchanged(found: re.Match[bytes]) -> bytes:
        written = found[2]
        if written not in known:
            model = json.loads(written)
            known[written] = json.dumps(names.get(model, model), ensure_ascii=False).encode()
        return found[1] + known[written]

    return _MODEL_AND_NAME.sub(exchanged, content)
