"""A request's body: read under a limit, looked into once, and the same to all readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message, Receive

from litellm_oauth.errors import InvalidInput
from litellm_oauth.gateway.body_memory import BodyMemory, HeldMemory
from litellm_oauth.gateway.errors import BodyTooLarge, TooManyBodies
from litellm_oauth.gateway.request_body import (
    Body,
    ClientGone,
    NotJson,
    Upload,
    json_body,
    parse_json,
    read,
    refuse_doubled_keys,
    refuse_to_translate_many_parts,
    weight,
)

MB = 1 << 20
ALICE, BOB = "alice", "bob"


def receiving(*pieces: bytes, ends: bool = True) -> Receive:
    """A server's ``receive`` for a body in these pieces; a client that leaves if it does not end."""
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if ends:
        messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive


def held(memory: BodyMemory | None = None, owner: str = ALICE) -> HeldMemory:
    return HeldMemory(memory or BodyMemory(100 * MB), owner)


# Reading


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("pieces", [[b""], [b"abc"], [b"a", b"", b"bc"], [b"0123456789"]], ids=repr)
async def test_a_body_within_its_limit_is_read_whole(declared: bool, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    size = len(whole) if declared else None
    assert await read(receiving(*pieces), size, 10, held()) == whole


async def test_a_body_in_one_message_is_read() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"abc"}

    assert await read(receive, None, 10, held()) == b"abc"


async def test_a_body_that_is_declared_too_large_is_refused_unread() -> None:
    async def receive() -> Message:
        raise AssertionError("it was read")

    with pytest.raises(BodyTooLarge):
        await read(receive, 11, 10, held())


async def test_a_body_that_grows_too_large_is_refused_where_it_does() -> None:
    receive = receiving(b"01234", b"56789", b"x", b"never read")
    with pytest.raises(BodyTooLarge):
        await read(receive, None, 10, held())
    assert (await receive())["body"] == b"never read"


async def test_a_body_that_is_larger_than_declared_is_refused_by_its_limit() -> None:
    with pytest.raises(BodyTooLarge):
        await read(receiving(b"0" * 11), 1, 10, held())


@pytest.mark.parametrize("pieces", [[], [b"half"]])
async def test_a_client_that_leaves_has_sent_no_body(pieces: list[bytes]) -> None:
    with pytest.raises(ClientGone):
        await read(receiving(*pieces, ends=False), None, 10, held())


async def test_the_limit_is_told_in_megabytes() -> None:
    with pytest.raises(BodyTooLarge, match="larger than 2 MB"):
        await read(receiving(), 2 * MB + 1, 2 * MB, held())


# Uploads


async def test_an_upload_goes_through_piece_by_piece_and_says_when_it_has_been_read() -> None:
    read_at: list[int] = []
    upload = Upload(receiving(b"a", b"", b"b"), None, 2)
    seen: list[bytes] = []
    upload.when_read(lambda: read_at.append(len(seen)))
    async for piece in upload:
        seen.append(piece)
    assert (seen, read_at) == ([b"a", b"b"], [2])


async def test_an_upload_that_is_declared_too_large_is_refused_at_once() -> None:
    Upload(receiving(), 10, 10)
    with pytest.raises(BodyTooLarge):
        Upload(receiving(), 11, 10)


async def test_an_upload_that_grows_too_large_or_breaks_off_has_not_been_read() -> None:
    told: list[bool] = []
    for receive, error in (
        (receiving(b"012", b"345"), BodyTooLarge),
        (receiving(b"0", ends=False), ClientGone),
    ):
        upload = Upload(receive, None, 5)
        upload.when_read(lambda: told.append(True))
        with pytest.raises(error):
            _ = [piece async for piece in upload]
    assert told == []


async def test_an_upload_that_a_server_s_application_receives_has_the_same_limit() -> None:
    upload = Upload(receiving(b"012", b"345"), None, 5)
    assert (await upload.receive())["body"] == b"012"
    with pytest.raises(BodyTooLarge):
        await upload.receive()


async def test_small_bodies_need_no_memory() -> None:
    memory = BodyMemory(MB, patience=0.01)
    assert await memory.take(ALICE, MB) == MB
    assert await memory.take(ALICE, 256 * 1024) == 0
    assert await read(receiving(b"0" * 1000), None, 10 * MB, held(memory)) == b"0" * 1000


async def test_a_body_of_unknown_size_takes_what_it_may_become() -> None:
    memory = BodyMemory(3 * MB, patience=0.01)
    request = held(memory)
    await read(receiving(b"0" * (MB // 2)), None, 2 * MB, request)
    with pytest.raises(TooManyBodies):
        await memory.take(ALICE, MB + 1)
    request.release()
    assert await memory.take(ALICE, 3 * MB) == 3 * MB


# JSON


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": 1,}',
        b"\xff",
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"model": "m"}'.encode("utf-16"),
        '{"model": "m"}'.encode("utf-32-le"),
        b'{"a": NaN}',
        b'{"a": [Infinity]}',
        b'{"a": {"b": -Infinity}}',
        b'{"a": 1e999}',
        b'{"a": -1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        rb'{"a": "\ud800"}',
        rb'{"a": "\udc00\ud800"}',
        rb'{"\uD800": 1}',
        rb'{"a": ["x", {"b": "\uDfff"}]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda content: repr(content[:24]),
)
def test_json_that_two_readers_could_read_differently_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"not (a )?JSON"):
        json_body(content)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (rb'{"a": "\ud83d\ude00"}', {"a": "\U0001f600"}),
        (rb'{"a": "\\ud800"}', {"a": r"\ud800"}),
        (b'{"a": 1e308}', {"a": 1e308}),
        (b'{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        (rb'{"\u0061": "\u0000"}', {"a": "\0"}),
        (b' \r\n\t{"a": {}} ', {"a": {}}),
    ],
)
def test_json_that_all_read_alike_is_read(content: bytes, value: object) -> None:
    assert json_body(content).document == value


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1, "a": 1}',
        b'{"model": "other", "model": "m"}',
        rb'{"\u006dodel": "other", "model": "m"}',
        rb'{"m\u006Fdel": "other", "mod\u0065l": "m"}',
        b'{"x": [{"y": {"a": 1, "b": 2, "a": 3}}]}',
        b'{"": 1, "": 2}',
        rb'{"\ud83d\ude00": 1, "' + "\U0001f600".encode() + rb'": 2}',
        rb'{"a\/b": 1, "a/b": 2}',
        b'[[{"a": 1, "a": 2}]]',
    ],
)
def test_a_doubled_key_is_refused_at_any_depth_and_in_any_spelling(content: bytes) -> None:
    for judge in (json_body, parse_json, refuse_doubled_keys):
        with pytest.raises(InvalidInput, match="same key twice"):
            judge(content)


@pytest.mark.parametrize(
    "content",
    [b'{"a": {"a": 1}, "b": {"a": 1}}', b'{"a": 1, "A": 2}', b'{"a": 1, " a": 2}', b'[{"a": 1}, {"a": 1}]'],
)
def test_the_same_key_in_two_objects_is_none_that_is_doubled(content: bytes) -> None:
    parse_json(content)
    refuse_doubled_keys(content)


@pytest.mark.parametrize(
    "content", [b"", b"a=b&a=c", b"\xff\x00", b"[" * 100_000, b"{", b"NaN"], ids=lambda c: repr(c[:9])
)
def test_what_is_no_json_is_left_to_others_where_it_need_not_be(content: bytes) -> None:
    refuse_doubled_keys(content)


@pytest.mark.parametrize("leaf", [b"", b"1"])
@pytest.mark.parametrize(("depth", "fits"), [(200, True), (201, False), (900, False)])
def test_nesting_has_a_limit(depth: int, fits: bool, leaf: bytes) -> None:
    content = b"[" * depth + leaf + b"]" * depth
    if fits:
        parse_json(content)
    else:
        with pytest.raises(InvalidInput, match="nested more than 200 levels"):
            parse_json(content)


@pytest.mark.parametrize("reader", [parse_json, refuse_doubled_keys])
@pytest.mark.parametrize("part", [b"[]", b'{"a":1}', b'{"role":"user","content":"x"}', b'""', b"1"])
def test_a_body_of_a_million_parts_is_not_read(reader: Callable[[bytes], object], part: bytes) -> None:
    with pytest.raises(InvalidInput, match="more than 1,000,000 parts"):
        reader(b"[" + b",".join([part] * 1_000_001) + b"]")


def test_what_litellm_translates_has_fewer_parts() -> None:
    refuse_to_translate_many_parts(b"[" + b",".join([b"[]"] * 49_999) + b"]")
    with pytest.raises(InvalidInput, match="more than 100,000 parts"):
        refuse_to_translate_many_parts(b"[" + b",".join([b"[]"] * 50_001) + b"]")


def test_a_body_of_many_parts_weighs_more_than_one_text_of_its_size() -> None:
    lists, text = b"[" + b",".join([b"[]"] * 300_000) + b"]", json.dumps("A" * 900_000).encode()
    assert weight(lists) > 16 * len(lists) / 3
    assert weight(text) < len(text) + 200
    for mark in (",", "[{", '\\"'):
        marks = json.dumps(mark * 500_000).encode()
        assert weight(marks) < len(marks) + 200


@pytest.mark.parametrize("text", [b",", b"[{", rb"\"", rb"\\", b"\n"])
def test_what_stands_in_a_text_is_one_part(text: bytes) -> None:
    content = b'["' + text * 1_000_001 + b'",1]'
    with suppress(NotJson):
        parse_json(content)


def test_what_stands_beside_the_deepest_value_makes_it_no_deeper() -> None:
    parse_json(b'{"a": ' + b"[" * 199 + b"1" + b"]" * 199 + b', "b": [[]]}')


def test_many_objects_beside_each_other_are_not_deep() -> None:
    assert len(parse_json(b"[" + b",".join([b"[{}]"] * 10_000) + b"]")) == 10_000


# Models


@pytest.mark.parametrize(
    ("document", "models"),
    [
        ({"model": "m"}, {"m"}),
        ({"model": 1}, set()),
        ({"model": ""}, set()),
        ({"model": None}, set()),
        ({}, set()),
        ({"model": "m", "fallbacks": [{"model": "a"}, {"model": 2}, "b", None]}, {"m", "a"}),
        ({"tools": [{"type": "advisor", "model": "a"}, {"name": "t"}]}, {"a"}),
        ({"tools": {"model": "a"}, "fallbacks": "b"}, set()),
        (
            {"requests": [{"params": {"model": "a"}}, {"params": {"model": "b"}}, {"params": 1}, 2]},
            {"a", "b"},
        ),
        ({"requests": [{"params": {"model": "a", "tools": [{"model": "b"}]}}]}, {"a", "b"}),
        ({"requests": [{"params": {"fallbacks": [{"model": "c"}]}}]}, {"c"}),
        ({"requests": {"params": {"model": "a"}}, "model": "m"}, {"m"}),
        ({"requests": [{"model": "a"}]}, set()),
        ({"messages": [{"model": "a"}], "metadata": {"model": "b"}, "system": "model"}, set()),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_all_models_that_a_body_names_where_the_api_reads_one(
    document: dict[str, Any], models: set[str]
) -> None:
    assert json_body(json.dumps(document).encode()).models == models


@pytest.mark.parametrize(
    ("content", "model"),
    [(b'{"model": "m"}', "m"), (b'{"model": 1}', None), (b'{"model": ""}', None), (b"{}", None)],
)
def test_the_model_of_a_body(content: bytes, model: str | None) -> None:
    assert json_body(content).model == model


def test_a_body_that_is_no_json_names_no_model_and_stays_as_it_is() -> None:
    body = Body(b"\xff\x00")
    assert (body.model, body.models, body.named({"m": "n"})) == (None, frozenset(), b"\xff\x00")


def test_a_body_is_not_shown() -> None:
    assert "secret" not in repr(json_body(b'{"model": "secret"}'))


# Names


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"model":"ours","x":1}', b'{"model":"api","x":1}'),
        (b'{ "x" : 1.50 ,\n "model" :\t"ours" }', b'{ "x" : 1.50 ,\n "model" :\t"api" }'),
        ('{"m": "é", "model": "ours"}'.encode(), '{"m": "é", "model": "api"}'.encode()),
        (
            b'{"x": "\\"model\\": \\"ours\\"", "model": "ours"}',
            b'{"x": "\\"model\\": \\"ours\\"", "model": "api"}',
        ),
        (b'{"x": "ours", "model": "ours"}', b'{"x": "ours", "model": "api"}'),
        (b'{"model": "other"}', b'{"model": "other"}'),
        (b'{"model": "o(u.r"}', b'{"model": "b"}'),
        (b'{"m": "\\u00e9", "model": "ours"}', b'{"m": "\\u00e9", "model": "api"}'),
        (
            b'{"model":"other","x":1e1,"tools":[{"model" :"ours"}],"fallbacks":[{"model":"ours"}]}',
            b'{"model":"other","x":1e1,"tools":[{"model" :"api"}],"fallbacks":[{"model":"api"}]}',
        ),
        # Where there may be two places, or one that is written in another way, all of it is written again.
        (b'{"x": {"model":"ours"}, "model":"ours"}', b'{"x": {"model": "ours"}, "model": "api"}'),
        (b'{"x": {"model":"ours"}, "m\\u006fdel":"ours"}', b'{"x": {"model": "ours"}, "model": "api"}'),
    ],
)
def test_a_name_is_exchanged_in_its_place_and_nothing_else_changes(content: bytes, named: bytes) -> None:
    assert json_body(content).named({"ours": "api", "other": "other", "o(u.r": "b"}) == named


def test_a_body_with_the_api_s_names_goes_out_byte_by_byte() -> None:
    content = b'{"model":  "m", "tools": [{"model": "n"}], "x": 1.0e1}'
    assert json_body(content).named({"m": "m", "n": "n"}) is content


KEYS = st.sampled_from(
    ["model", "fallbacks", "tools", "requests", "params", "x", '"model"', 'a"model', "ours", ""]
)
NAMES: Mapping[str, str] = {
    "ours": "the-api's",
    "other": 'a "quoted" é \\ name',
    "é": "ours",
    'o"': "\U0001f600",
}
TEXTS = st.sampled_from(
    [*NAMES, "model", '"model": "ours"', '{"model":"ours"}', "\\", "\x00", "unlisted"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | TEXTS, inner, max_size=5),
    max_leaves=20,
)
DOCUMENTS = st.builds(
    lambda model, more: {**model, **more} if len(more) % 2 else {**more, **model},
    st.fixed_dictionaries({}, optional={"model": TEXTS}),
    st.dictionaries(KEYS | TEXTS, VALUES, max_size=5),
)
DUMPS: list[Callable[[Any], bytes]] = [
    lambda value: json.dumps(value).encode(),
    lambda value: json.dumps(value, ensure_ascii=False).encode(),
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
    lambda value: json.dumps(value, indent=3, separators=(" ,", "\t:\r\n")).encode(),
    lambda value: json.dumps(value).replace("model", "m\\u006fdel").replace("/", "\\/").encode(),
]


def renamed(document: Any, names: Mapping[str, str]) -> Any:
    """What `named` should come to, told in another way."""
    if not isinstance(document, dict):
        return document

    def of(one: Any) -> Any:
        model = one.get("model") if isinstance(one, dict) else None
        return {**one, "model": names[model]} if isinstance(model, str) and model in names else one

    new = of(document)
    for key in ("fallbacks", "tools"):
        if isinstance(new.get(key), list):
            new = {**new, key: [of(one) for one in new[key]]}
    if isinstance(new.get("requests"), list):
        requests = [
            {**one, "params": renamed(one["params"], names)}
            if isinstance(one, dict) and "params" in one
            else one
            for one in new["requests"]
        ]
        new = {**new, "requests": requests}
    return new


@given(DOCUMENTS, st.sampled_from(DUMPS))
@example({"model": "ours", "x": {"model": "ours"}}, DUMPS[0])
@example({"x": {"model": "ours"}, "model": "other"}, DUMPS[3])
def test_renaming_comes_to_the_same_in_every_spelling(
    document: dict[str, Any], dump: Callable[[Any], bytes]
) -> None:
    body = json_body(dump(document))
    assert body.document == document
    names = {model: NAMES.get(model, model) for model in body.models}
    assert json_body(body.named(names)).document == renamed(document, names)


@given(VALUES, st.sampled_from(DUMPS))
def test_what_is_let_through_is_read_alike_by_a_strict_and_a_lenient_reader(
    value: Any, dump: Callable[[Any], bytes]
) -> None:
    content = dump(value)
    assert parse_json(content) == json.loads(content) == value


@given(st.binary(max_size=30) | st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_reading_them_fail_in_another_way(content: bytes) -> None:
    for judge in (json_body, refuse_doubled_keys):
        with suppress(InvalidInput):
            judge(content)
