"""A batch on its way through: what arrives, whatever the pieces it came in, and what never does."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message, Receive

from litellm_oauth.errors import InvalidInput, LitellmOAuthError
from litellm_oauth.gateway.batch_stream import BatchStream, Names
from litellm_oauth.gateway.body_memory import BodyMemory, HeldMemory
from litellm_oauth.gateway.errors import BodyTooLarge, NoSuchModel, TooManyBodies
from litellm_oauth.gateway.request_body import Body, ClientGone, json_body

MB = 1 << 20
ALICE = "alice"
NAMES = {"ours": 'the "api\'s" é', "other": "the-api's-too", "same": "same", 'o"\\': "\U0001f600"}


def named(body: Body) -> Mapping[str, str]:
    for model in body.models:
        if model not in NAMES:
            raise NoSuchModel(model)
    return {model: NAMES[model] for model in body.models}


def receiving(pieces: list[bytes], *, ends: bool = True) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if ends:
        messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive


def stream(
    *pieces: bytes,
    ends: bool = True,
    limit: int = 500 * MB,
    largest: int = MB,
    memory: BodyMemory | None = None,
) -> BatchStream:
    held = HeldMemory(memory or BodyMemory(3 * largest))
    return BatchStream(receiving(list(pieces), ends=ends), None, limit, largest=largest, memory=held)


async def passed(batch: BatchStream, arrived: list[bytes] | None = None, names: Names = named) -> bytes:
    """What arrives at the API, also kept in ``arrived`` piece by piece."""
    arrived = [] if arrived is None else arrived
    await batch.begin(names)
    async for piece in batch:
        arrived.append(piece)
    return b"".join(arrived)


def pieces_of(content: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(content) + 1) for cut in cuts} | {0, len(content)})
    return [content[start:end] for start, end in pairwise(places)] or [b""]


def batch_of(*requests: object, **beside: object) -> bytes:
    return json.dumps({"requests": requests, **beside}).encode()


def asking(model: str = "ours", **params: object) -> dict[str, Any]:
    return {"custom_id": "a", "params": {"model": model, **params}}


# What arrives


FIRST = b'{"requests":[{"params":{"model":"other"}}]}'
AIRY = b"""\r\n{ "x" : 1.50 ,\t"requests" : [ {"params": {"model" :
 "other", "n": 1e2, "s": "\\u00e9\\/"}} ,{"a":-0} ] } \n"""


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (FIRST, FIRST.replace(b"other", b"the-api's-too")),
        (
            FIRST.replace(b'"r', b'"\\u0072'),
            FIRST.replace(b'"r', b'"\\u0072').replace(b"other", b"the-api's-too"),
        ),
        (AIRY, AIRY.strip().replace(b"other", b"the-api's-too").replace(b" ] }", b" ]}")),
        (b'{"requests":[{"params":{"model":"same"}}],"x":[{}]}',) * 2,
        (b'{"x":[[1],"]"],"y":{"z":[]},"requests":[{"params":{"model":"same"}}]}',) * 2,
        (b'{"model":"same","requests":[]}',) * 2,
        (b'{"requests":[ ],"model":"other"}', b'{"requests":[],"model":"the-api\'s-too"}'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_all_but_the_names_arrives_as_it_came(sent: bytes, arrives: bytes, size: int) -> None:
    pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
    assert await passed(stream(*pieces)) == arrives


@pytest.mark.parametrize(
    "request_",
    [
        asking(),
        asking("other", fallbacks=[{"model": "ours"}, {"model": "same"}]),
        asking(tools=[{"type": "advisor", "model": "other"}, {"name": "model"}]),
        asking(tools=[{"input_schema": {"properties": {"model": {"type": "string"}}}}]),
        asking(requests=[asking("other"), {"params": {"fallbacks": [{"model": "ours"}]}}]),
        asking(system="é\\u006d \\\\\" \"model\": \"ours\"", n=[2**70, 1.0, 1, 0.1, 1e300, -5e-324]),
        {"params": {"model": "ours", "requests": {"x": [1]}}},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("ascii_only", [True, False])
async def test_models_are_named_wherever_a_request_names_one(
    request_: dict[str, Any], ascii_only: bool
) -> None:
    sent = json.dumps({"requests": [asking("same"), request_]}, ensure_ascii=ascii_only).encode()
    body = json_body(sent)
    arrived = await passed(stream(sent))
    assert json.loads(arrived) == json.loads(body.named(named(body)))
    assert json_body(arrived).models == {NAMES[model] for model in body.models}


TEXTS = st.sampled_from(
    [*NAMES, "model", "requests", '{"model":"ours"}', "]}", "\\", '"', '\\\\"', "[{"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
HOLDERS = st.builds(
    lambda model, more, first: {"model": model, **more} if first else {**more, "model": model},
    st.sampled_from([*NAMES]),
    st.dictionaries(TEXTS.filter(lambda key: key not in ("model", "tools", "fallbacks", "requests")), VALUES),
    st.booleans(),
)
REQUESTS = st.builds(
    lambda params, lists, more: {**more, "params": {**lists, **params}},
    HOLDERS,
    st.dictionaries(
        st.sampled_from(["tools", "fallbacks"]),
        st.lists(HOLDERS | VALUES.filter(lambda value: not isinstance(value, dict)), max_size=2),
    ),
    st.dictionaries(TEXTS, VALUES, max_size=2),
)  # fmt: skip
BATCHES = st.builds(
    lambda before, requests, after: {**before, "requests": requests, **after},
    st.dictionaries(st.sampled_from(["a", "b", "é", "requests "]), VALUES, max_size=2),
    st.lists(REQUESTS, min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(["c", "d", '"']), VALUES, max_size=2),
)
DUMPS: list[Callable[[Any], bytes]] = [
    lambda value: json.dumps(value).encode(),
    lambda value: json.dumps(value, ensure_ascii=False).encode(),
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
    lambda value: json.dumps(value, indent=3, separators=(" ,", "\t:\r\n")).encode() + b" \n",
    lambda value: json.dumps(value).replace("model", "m\\u006fdel").replace("/", "\\/").encode(),
]


def exactly(value: Any) -> Any:
    """The value as one that tells 1 from 1.0 and True, and one order of keys from another."""
    if isinstance(value, dict):
        return [(key, exactly(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return [exactly(inner) for inner in value]
    return (type(value).__name__, repr(value))


@given(BATCHES, st.sampled_from(DUMPS), st.lists(st.integers(0, 10_000), max_size=30))
@example({"requests": [asking(x='\\"')]}, DUMPS[0], list(range(100)))
async def test_what_arrives_says_the_same_with_the_models_renamed_in_whatever_pieces_it_came(
    batch: dict[str, Any], dump: Callable[[Any], bytes], cuts: list[int]
) -> None:
    sent = dump(batch)
    body = json_body(sent)
    arrived = await passed(stream(*pieces_of(sent, cuts)))
    assert exactly(json.loads(arrived)) == exactly(json.loads(body.named(named(body))))


MARKS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b" ",
    b"\\",
    b"1",
    b'"model"',
    b'"requests"',
    b'"a":"same"',
]


@given(
    st.lists(st.sampled_from(MARKS), max_size=8),
    BATCHES,
    st.sampled_from(DUMPS),
    st.integers(0, 10_000),
    st.integers(0, 3),
    st.lists(st.integers(0, 10_000), max_size=10),
)  # fmt: skip
async def test_what_is_damaged_is_refused_as_it_would_be_as_a_whole_and_is_never_whole_at_the_api(
    put: list[bytes],
    batch: dict[str, Any],
    dump: Callable[[Any], bytes],
    place: int,
    cut: int,
    cuts: list[int],
) -> None:
    sent = dump(batch)
    place %= len(sent) + 1
    sent = sent[:place] + b"".join(put) + sent[place + cut :]
    try:
        body = json_body(sent)
        document = body.document or {}
        names = named(body)
    except LitellmOAuthError:
        good = False
    else:
        requests = document.get("requests")
        good = bool(names) and isinstance(requests, list) and all(isinstance(one, dict) for one in requests)
    arrived: list[bytes] = []
    if good:
        assert exactly(json.loads(await passed(stream(*pieces_of(sent, cuts))))) == exactly(
            json.loads(body.named(names))
        )
        return
    with pytest.raises(LitellmOAuthError):
        await passed(stream(*pieces_of(sent, cuts)), arrived)
    assert not is_whole(b"".join(arrived))


def is_whole(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


# What does not


GOOD = b'{"requests":[{"params":{"model":"same"}}'
FAR = b'{"requests":[' + b",".join([json.dumps(asking("same", system="x" * 1000)).encode()] * 300)


@pytest.mark.parametrize("start", [GOOD, FAR], ids=["at once", "late"])
@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"]",
        b"]}x",
        b"]}{}",
        b"]}]",
        b"]},",
        b"]}\x00",
        b"]}\xef\xbb\xbf",
        b"}",
        b"]]",
        b",]}",
        b",,{}]}",
        b" {}]}",
        b"],}",
        b'],"a"}',
        b'],"a":}',
        b'],"a":1,"a":2}',
        b'],"requests":[]}',
        b'],"requests":1}',
        b'],"r\\u0065quests":{}}',
        b'],"a":[1}]}',
        b'],"a":[1][2]}',
        b'] "a":1}',
        b"]1}",
        b"][]}",
        b"]\\}",
        b"]}\\",
        b",{]]}",
        b',{"a":1 "b":2}]}',
        b",{'a':1}]}",
        b',{"a":NaN}]}',
        b',{"a":1e999}]}',
        b',{"a":01}]}',
        b',{"a":"\xff"}]}',
        b',{"a":"\\ud800"}]}',
        b',{"a":"\x01"}]}',
        b',{"a":"\\x"}]}',
        b',{"a":\\"1"}]}',
        b',{"a":1,"a":1}]}',
        b',{"params":{"x":[{"y":{"k":1,"\\u006b":2}}]}}]}',
        b",1]}",
        b',"x"]}',
        b",[]]}",
        b",null]}",
        b',{"a":' + b"[" * 250 + b"]" * 250 + b"}]}",
        b',{"a":' + b"[" * 198 + b"]" * 198 + b"}]}",
        b',{"params":{"model":"unlisted"}}]}',
        b',{"params":{"model":"same","fallbacks":[{"model":"unlisted"}]}}]}',
        b',{"params":{"model":"same","tools":[{"m\\u006fdel":"unlisted"}]}}]}',
        b'],"model":"unlisted"}',
        b'],"tools":[{"model":"unlisted"}]}',
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [5, 100_000])
async def test_a_batch_that_is_bad_at_its_end_never_arrives_whole(
    start: bytes, rest: bytes, size: int
) -> None:
    arrived: list[bytes] = []
    pieces = [start, *(rest[at : at + size] for at in range(0, len(rest), size))]
    with pytest.raises((InvalidInput, NoSuchModel)):
        await passed(stream(*pieces), arrived)
    came = b"".join(arrived)
    assert not is_whole(came)
    assert not is_whole(came + b"]}") or b"unlisted" not in came
    assert b"unlisted" not in came
    assert (len(came) > 100_000) == (start is FAR)


async def test_a_comma_behind_the_last_request_is_seen_wherever_the_text_is_cut() -> None:
    large = json.dumps(asking("same", system="x" * 20_000)).encode()
    for end in (b",]}", b", ]}", b",,{}]}"):
        arrived: list[bytes] = []
        with pytest.raises(InvalidInput):
            await passed(stream(b'{"requests":[' + large + end), arrived)
        assert not is_whole(b"".join(arrived))


async def test_what_is_too_deep_is_refused_where_it_becomes_so() -> None:
    content = batch_of(asking()).removesuffix(b"]}") + b',{"a":' + b"[" * 300
    with pytest.raises(InvalidInput, match="nested more than 200 levels"):
        await passed(stream(content, ends=False))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b" ",
        b"[]",
        b"null",
        b'"{}"',
        b"{",
        b"{}",
        b"{,}",
        b'\xef\xbb\xbf{"requests":[{"params":{"model":"same"}}]}',
        '{"requests":[{"params":{"model":"same"}}]}'.encode("utf-16"),
        '{"requests":[{"params":{"model":"same"}}]}'.encode("utf-16-le"),
        b"{} {}",
        b'{"requests":[]}',
        b'{"requests":[{}]}',
        b'{"requests":[{"model":"same"}]}',
        b'{"requests":{"params":{"model":"same"}}}',
        b'{"requests":"x","model":"same"}',
        b'{"requests":null,"model":"same"}',
        b'{"x":{"requests":[{"params":{"model":"same"}}]}}',
        b'[{"requests":[{"params":{"model":"same"}}]}]',
        b'{"a":1,"a":2,"requests":[{"params":{"model":"same"}}]}',
        b"--boundary\r\nContent-Disposition: form-data",
        b"requests=1",
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [1, 100_000])
async def test_what_is_no_batch_is_refused_before_any_of_it_goes_on(sent: bytes, size: int) -> None:
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    with pytest.raises(InvalidInput):
        await stream(*pieces).begin(named)


async def test_nothing_goes_on_until_a_model_says_where() -> None:
    read: list[int] = []
    receive = receiving([batch_of({"a": "x" * 50_000}, {"a": 1}, asking()), b" " * 100])

    async def counted() -> Message:
        read.append(1)
        return await receive()

    batch = BatchStream(counted, None, MB, largest=MB, memory=HeldMemory(BodyMemory(MB)))
    await batch.begin(named)
    assert len(read) == 1
    with pytest.raises(InvalidInput, match="names no model"):
        await stream(b'{"requests":[{}', *[b",{}" * 10_000] * 50).begin(named)


async def test_the_one_who_names_is_asked_for_every_part_before_it_goes_on() -> None:
    seen: list[frozenset[str]] = []

    def names(body: Body) -> Mapping[str, str]:
        seen.append(body.models)
        if "other" in body.models:
            raise InvalidInput("elsewhere")
        return named(body)

    batch = stream(batch_of(asking(x="x" * 30_000), asking("other", x="x" * 30_000)))
    arrived: list[bytes] = []
    with pytest.raises(InvalidInput, match="elsewhere"):
        await passed(batch, arrived, names)
    assert seen == [{"ours"}, {"other"}]
    assert b"other" not in b"".join(arrived)


# Limits


async def test_a_batch_over_the_limit_is_broken_off() -> None:
    sent = batch_of(*[asking("same", system="x" * 1000)] * 1000)
    assert await passed(stream(sent, limit=len(sent))) == sent.removesuffix(b"]}") + b"]}"
    pieces = [sent[at : at + 1000] for at in range(0, len(sent), 1000)]
    with pytest.raises(BodyTooLarge):
        await passed(stream(*pieces, limit=len(sent) - 1))
    with pytest.raises(BodyTooLarge):
        BatchStream(receiving([]), 11, 10, largest=10, memory=HeldMemory(BodyMemory(10)))


@pytest.mark.parametrize("before", [0, 100])
async def test_one_request_has_the_limit_of_a_body(before: int) -> None:
    small = [asking(system="x" * 1000)] * before
    fits = asking("same", system="x" * (MB - 61))
    assert len(json.dumps(fits)) == MB
    assert len(await passed(stream(batch_of(*small, fits, *small)))) > MB
    with pytest.raises(BodyTooLarge, match="request of the batch is larger than 1 MB"):
        await passed(stream(batch_of(*small, asking("same", system="x" * (MB + 100_000)))))
    with pytest.raises(BodyTooLarge, match="request of the batch"):
        await passed(stream(batch_of(*small, asking("same", system=[["x"]] * MB))))


@pytest.mark.parametrize(
    "sent",
    [
        batch_of(asking(), x="x" * (MB + 1)),
        batch_of(asking(), **{str(number): "x" * 100_000 for number in range(11)}),
        b" " * (MB + 1) + batch_of(asking()),
        batch_of(asking()) + b" " * (MB + 1),
        b'{"' + b"x" * (MB + 1),
    ],
    ids=["value", "members", "before", "behind", "key"],
)
@pytest.mark.parametrize("size", [60_000, 10_000_000])
async def test_what_stands_beside_the_requests_has_a_limit_of_its_own(sent: bytes, size: int) -> None:
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    with pytest.raises(BodyTooLarge, match="beside its requests"):
        await passed(stream(*pieces))


async def test_a_batch_has_few_keys_of_its_own() -> None:
    beside = {str(number): number for number in range(100)}
    with pytest.raises(InvalidInput, match="more than 100 keys"):
        await passed(stream(batch_of(asking(), **beside)))
    del beside["0"]
    assert len(json.loads(await passed(stream(batch_of(asking(), **beside))))) == 100


async def test_a_large_request_holds_memory_until_it_has_gone_on() -> None:
    memory = BodyMemory(2 * MB, patience=0.01)
    large = json.dumps(asking("same", system="x" * 500_000)).encode()
    batch = stream(b'{"requests":[' + large + b",", large, b"]}", memory=memory)
    await batch.begin(named)
    with pytest.raises(TooManyBodies):
        await memory.take(ALICE, 2 * MB)
    assert len(await _next(batch)) > 500_000
    async for _ in batch:
        pass
    assert await memory.take(ALICE, 2 * MB) == 2 * MB


async def _next(batch: BatchStream) -> bytes:
    async for piece in batch:
        return piece
    raise AssertionError("nothing came")


async def test_a_large_request_waits_for_memory() -> None:
    memory = BodyMemory(MB, patience=0.01)
    await memory.take(ALICE, MB)
    with pytest.raises(TooManyBodies):
        await passed(stream(batch_of(asking(system="x" * 500_000)), memory=memory))


async def test_small_requests_need_none() -> None:
    memory = BodyMemory(MB, patience=0.01)
    await memory.take(ALICE, MB)
    assert len(await passed(stream(batch_of(*[asking(system="x" * 1000)] * 2000), memory=memory))) > MB


@pytest.mark.parametrize(
    "content",
    [
        batch_of(*[asking(system='x "quoted"\n' * 80, tools=[{"name": "t", "input_schema": {}}])] * 4000),
        batch_of(asking(), *[{}] * 200_000),
        batch_of(*[asking(x=[[]] * 3000)] * 100),
    ],
    ids=["usual", "empty", "dense"],
)
async def test_a_batch_of_many_requests_lets_others_have_their_turn(content: bytes) -> None:
    """In the time of this thread: what another process takes away is nobody's fault here."""
    turns: list[float] = []

    async def watch() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            turns.append(now - last)
            last = now

    gc.collect()
    gc.disable()
    try:
        watching = asyncio.create_task(watch())
        await passed(stream(content))
        watching.cancel()
    finally:
        gc.enable()
    assert len(turns) > 15
    assert max(turns) < 0.04


# Clients


@pytest.mark.parametrize(
    "sent", [b"", b'{"requests":[', FAR, batch_of(asking())], ids=lambda sent: repr(sent[:9])
)
async def test_a_client_that_leaves_ends_it(sent: bytes) -> None:
    arrived: list[bytes] = []
    with pytest.raises(ClientGone):
        await passed(stream(sent, ends=False), arrived)
    assert not is_whole(b"".join(arrived))


@pytest.mark.parametrize("many", [1, 1000])
async def test_it_says_when_nothing_is_left_to_come_even_if_that_was_so_before_it_went_on(many: int) -> None:
    told: list[bool] = []
    batch = stream(batch_of(*[asking(system="x" * 1000)] * many))
    await batch.begin(named)
    batch.when_read(lambda: told.append(True))
    async for _ in batch:
        pass
    assert told == [True]
