"""Redis: ciphertext with an end, newer generations only, and what goes wrong there is nobody's loss."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chaos.wire import Wire, wire
from litellm_oauth.changes import Changes
from litellm_oauth.errors import NotLoggedIn, StorageUnavailable
from litellm_oauth.service import TokenService
from litellm_oauth.settings import RedisSettings
from litellm_oauth.stores import CachedToken, RowStatus, TokenRow
from litellm_oauth.stores import redis as module
from litellm_oauth.stores.memory import TokenMemory
from litellm_oauth.stores.redis import LIFETIME, NoCache, RedisCache, key_of
from litellm_oauth.tokens import AccessToken
from support.postgres import TOKENS
from support.redis import PASSWORD, RedisServer
from support.rows import ROW
from support.service import ACTOR, QUICK, Gateways, MovableClock, eventually

ALICE = "alice: ünï|code {}'\""
SEALED = "v1.0123456789abcdef.c2VhbGVk"
TIMEOUT = 0.2
LONG = 1.0
PAUSE = 0.15

OpenCache = Callable[..., RedisCache]


def row(generation: int, user: str = ALICE, **changes: Any) -> TokenRow:
    now = time.time()
    whole = replace(
        ROW,
        user_id=user,
        access_token=f"{SEALED}-{generation}",
        refresh_token=f"{SEALED}-refresh",
        expires_at=now + 3600,
        generation=generation,
        logged_in_at=None,
        updated_at=now,
        read_at=None,
    )
    return replace(whole, **changes)


@pytest_asyncio.fixture
async def open_cache(redis_server: RedisServer) -> AsyncIterator[OpenCache]:
    """Opens caches, each one standing for a process of its own."""
    made: list[RedisCache] = []

    def new(clock: Callable[[], float] = time.time, **options: Any) -> RedisCache:
        made.append(RedisCache(redis_server.settings(**{"timeout": TIMEOUT, **options}), clock, pause=PAUSE))
        return made[-1]

    yield new
    for cache in made:
        await cache.close()


@pytest_asyncio.fixture
async def cache(open_cache: OpenCache) -> RedisCache:
    """One that has connected already."""
    made = open_cache(timeout=2.0)
    assert await made.get("nobody") is None
    return made


async def put(cache: RedisCache, row: TokenRow) -> None:
    cache.put(row)
    await eventually(lambda: not cache._unwritten)


@asynccontextmanager
async def line(redis_server: RedisServer) -> AsyncIterator[tuple[Wire, int]]:
    """A line to Redis that can be cut, and the port at its near end."""
    async with wire(redis_server.url) as (made, url):
        yield made, int(url.rpartition(":")[2].partition("/")[0])


@asynccontextmanager
async def peer(answer: bytes | None) -> AsyncIterator[int]:
    """Something that accepts connections, and says ``answer`` to whatever it hears, or nothing at all."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.read(65_536):
            writer.write(answer or b"")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def timed(work: Any) -> tuple[Any, float]:
    started = time.monotonic()
    return await work, time.monotonic() - started


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == module.__name__ and r.levelno >= logging.INFO]


# ---- What lies there


async def test_what_was_put_is_found_by_others_until_it_expires(
    cache: RedisCache, open_cache: OpenCache, redis_server: RedisServer
) -> None:
    clock = MovableClock()
    other = open_cache(clock, timeout=2.0)
    await put(cache, row(1))
    found = await other.get(ALICE)
    assert found is not None
    assert (found.user_id, found.generation, found.access_token) == (ALICE, 1, f"{SEALED}-1")
    assert found.expires_at == pytest.approx(time.time() + 3600, abs=5)
    assert await other.get(ALICE.upper()) is None
    clock.ahead = 3601
    assert await other.get(ALICE) is None
    clock.ahead = 0
    redis_server.admin.flushall()
    assert await other.get(ALICE) is None
    await put(cache, row(2))
    assert await other.get(ALICE) is not None


async def test_an_entry_ends_with_its_token_and_after_some_minutes_at_the_latest(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    await put(cache, row(1))
    (key,) = redis_server.contents()
    assert LIFETIME - 5 < redis_server.admin.ttl(key) <= LIFETIME
    await put(cache, row(2, expires_at=time.time() + 20))
    assert 10 < redis_server.admin.ttl(key) <= 20
    await put(cache, row(3, expires_at=time.time() - 1))
    assert json.loads(redis_server.contents()[key]) == {"generation": 3}


async def test_the_name_of_an_entry_tells_nothing_of_its_user(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    await put(cache, row(1))
    ((key, value),) = redis_server.contents().items()
    assert key.startswith("litellm_oauth:v1:")
    assert set(key.removeprefix("litellm_oauth:v1:")) <= set("0123456789abcdef")
    assert "alice" not in key + value.decode()
    assert "refresh" not in value.decode()


@pytest.mark.parametrize("generations", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
async def test_an_older_generation_never_replaces_a_newer_one(
    cache: RedisCache, generations: tuple[int, ...]
) -> None:
    for generation in generations:
        await put(cache, row(generation))
    found = await cache.get(ALICE)
    assert found is not None
    assert found.generation == 3


async def test_processes_that_write_at_once_leave_the_newest_generation(open_cache: OpenCache) -> None:
    caches = [open_cache(timeout=2.0) for _ in range(4)]
    await asyncio.gather(*(cache.get(ALICE) for cache in caches))
    for generation in range(1, 41):
        caches[generation * 7 % 4].put(row(generation))
        await asyncio.sleep(0)
    await eventually(lambda: not any(cache._unwritten for cache in caches))
    found = await caches[0].get(ALICE)
    assert found is not None
    assert found.generation == 40


async def test_whoever_is_late_does_not_bring_back_what_was_buried(
    cache: RedisCache, open_cache: OpenCache, redis_server: RedisServer
) -> None:
    late = open_cache(timeout=2.0)
    assert await late.get(ALICE) is None
    await put(cache, row(1))
    await cache.bury(ALICE, 2)
    assert await late.get(ALICE) is None
    (key,) = redis_server.contents()
    assert LIFETIME - 5 < redis_server.admin.ttl(key) <= LIFETIME
    await put(late, row(1))
    assert await late.get(ALICE) is None
    await put(late, row(3))
    assert await cache.get(ALICE) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"status": RowStatus.REAUTH_REQUIRED},
        {"status": RowStatus.LOGGED_OUT, "access_token": None, "expires_at": None},
        {"access_token": "gAAAAABmZXJuZXQ"},
        {"access_token": "sk-ant-oat01-in-the-clear"},
    ],
)
async def test_what_had_better_not_serve_only_keeps_older_entries_out(
    cache: RedisCache, redis_server: RedisServer, changes: dict[str, Any]
) -> None:
    await put(cache, row(1))
    await put(cache, row(2, **changes))
    assert [json.loads(value) for value in redis_server.contents().values()] == [{"generation": 2}]
    assert await cache.get(ALICE) is None


def entry(**changes: Any) -> bytes:
    found = {"generation": 1, "accessToken": SEALED, "expiresAt": 4e9, **changes}
    return json.dumps({name: value for name, value in found.items() if value is not None}).encode()


FOREIGN = {
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "null": b"null",
    "a list": b"[1, 2]",
    "a long number": b"1" * 10_000,
    "cut off": entry()[:40],
    "no generation": entry(generation=None),
    "generation 0": entry(generation=0),
    "generation true": entry(generation=True),
    "generation as text": entry(generation="7"),
    "half a generation": entry(generation=1.5),
    "generation too high to count": entry(generation=2**60),
    "no token": entry(accessToken=None),
    "a list of tokens": entry(accessToken=["v1."]),
    "a token bound to nobody": entry(accessToken="gAAAAABmZXJuZXQ"),
    "no end": entry(expiresAt=None),
    "end as text": entry(expiresAt="4000000000"),
    "end NaN": entry(expiresAt=float("nan")),
    "end infinite": entry(expiresAt=float("inf")),
    "end true": entry(expiresAt=True),
    "more than an entry": entry(refreshToken=SEALED),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
async def test_a_value_that_is_none_of_ours_counts_as_absent(
    cache: RedisCache, redis_server: RedisServer, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.admin.set(key_of(ALICE), content)
    assert await cache.get(ALICE) is None
    await put(cache, row(2))
    assert await cache.get(ALICE) is not None
    assert warnings(caplog) == []


async def test_a_key_of_another_type_is_replaced(cache: RedisCache, redis_server: RedisServer) -> None:
    redis_server.admin.rpush(key_of(ALICE), "somebody's")
    await put(cache, row(1))
    assert await cache.get(ALICE) is not None


# ---- What may go wrong


async def test_a_redis_that_stops_is_missed_by_nobody_and_used_again_when_it_is_back(
    open_cache: OpenCache, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with line(redis_server) as (wire, port):
        cache = open_cache(port=port)
        await eventually_found(cache, row(1))
        wire.cut(silent=False)
        for _ in range(3):
            found, seconds = await timed(cache.get(ALICE))
            assert found is None
            assert seconds < TIMEOUT
        assert len(warnings(caplog)) == 1
        wire.mend()
        await eventually(lambda: cache._client is not None)
        assert await cache.get(ALICE) is not None
        assert len(warnings(caplog)) == 2
        assert "back" in warnings(caplog)[1]


async def test_a_redis_that_hangs_costs_everybody_one_time_out_at_most(
    open_cache: OpenCache, redis_server: RedisServer
) -> None:
    async with line(redis_server) as (wire, port):
        # long against what a busy machine takes by itself
        cache = open_cache(port=port, timeout=LONG)
        await eventually_found(cache, row(1))
        wire.cut(silent=True)
        found, seconds = await timed(asyncio.gather(*(cache.get(ALICE) for _ in range(50))))
        assert set(found) == {None}
        assert seconds < 2 * LONG
        _, seconds = await timed(asyncio.gather(*(cache.get(ALICE) for _ in range(50)), cache.bury(ALICE, 2)))
        assert seconds < LONG
        # One try after the other, and still nobody waits.
        await asyncio.sleep(PAUSE + LONG / 2)
        _, seconds = await timed(cache.get(ALICE))
        assert seconds < LONG


async def test_a_redis_that_is_slow_keeps_nobody_longer_than_the_time_out(open_cache: OpenCache) -> None:
    delay = 0.0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(65_536):
            await asyncio.sleep(delay)
            writer.write(b":1\r\n" if b"EVAL" in command else b"$-1\r\n" if b"GET" in command else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    cache = open_cache(port=server.sockets[0].getsockname()[1])
    cache.open()
    await eventually(lambda: cache._client)
    delay = 0.7 * TIMEOUT
    _, seconds = await timed(asyncio.gather(*(cache.get(ALICE) for _ in range(50))))
    assert seconds < 2 * TIMEOUT
    await cache.close()
    server.close()


async def test_a_logout_is_written_even_where_nothing_was_asked_before(
    open_cache: OpenCache, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = module._client_of

    def slowly(settings: RedisSettings) -> Any:
        # The library's import takes longer than Redis may.
        time.sleep(2 * TIMEOUT)
        return connect(settings)

    monkeypatch.setattr(module, "_client_of", slowly)
    logout = asyncio.create_task(open_cache().bury(ALICE, 2))
    _, seconds = await timed(asyncio.sleep(0.01))
    assert seconds < TIMEOUT
    await logout
    assert json.loads(redis_server.contents()[key_of(ALICE)]) == {"generation": 2}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b":no number\r\n",
        b"$99999999\r\nshort",
        b"\x00\xff\xfe\r\n",
        b"*1000000000\r\n",
        b"-WRONGPASS no: secret-of-the-server\r\n",
        b"-LOADING\r\n",
        b"+\r\n",
    ],
)
async def test_whatever_answers_in_place_of_redis_is_nobodys_error(
    open_cache: OpenCache, answer: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with peer(answer) as port:
        cache = open_cache(port=port)
        found, seconds = await timed(cache.get(ALICE))
        assert found is None
        assert seconds < 2 * TIMEOUT
        cache.put(row(1))
        await cache.bury(ALICE, 2)
        assert await cache.get(ALICE) is None
        assert len(warnings(caplog)) <= 1
        assert "secret-of-the-server" not in caplog.text


async def test_a_wrong_password_is_said_once_and_not_shown(
    open_cache: OpenCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache(password="not-the-password")
    assert await cache.get(ALICE) is None
    await asyncio.sleep(2 * PAUSE)
    assert await cache.get(ALICE) is None
    (said,) = warnings(caplog)
    assert "AuthenticationError" in said
    assert "not-the-password" not in caplog.text + repr(cache._settings)


async def test_nothing_listens_there(open_cache: OpenCache, caplog: pytest.LogCaptureFixture) -> None:
    async with peer(None) as port:
        pass
    assert await open_cache(port=port).get(ALICE) is None
    assert len(warnings(caplog)) == 1


async def test_what_could_not_be_written_is_buried_before_redis_is_used_again(
    open_cache: OpenCache, redis_server: RedisServer
) -> None:
    other = open_cache(timeout=2.0)
    async with line(redis_server) as (wire, port):
        cache = open_cache(port=port)
        await eventually_found(cache, row(1))
        await put(cache, row(1, "bob"))
        wire.cut(silent=True)
        # One is under way when Redis falls silent, two come after that.
        cache.put(row(2, "bob"))
        await cache.bury(ALICE, 2)
        cache.put(row(2, "carol"))
        assert await other.get(ALICE) is not None
        wire.mend()
        await eventually(lambda: cache._client is not None)
        for user in (ALICE, "bob", "carol"):
            assert json.loads(redis_server.contents()[key_of(user)]) == {"generation": 2}
        await put(other, row(1))
        assert await other.get(ALICE) is None


async def test_what_is_remembered_for_later_is_bounded(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNWRITTEN", 3)
    async with peer(None) as port:
        cache = open_cache(port=port)
        for n in range(10):
            cache.forget(f"user {n}", 1)
        cache.forget("user 9", 2)
        cache.forget("user 9", 1)
        assert [(e.user_id, e.generation) for e in cache._unwritten.values()] == [
            ("user 7", 1),
            ("user 8", 1),
            ("user 9", 2),
        ]


async def eventually_found(cache: RedisCache, row: TokenRow) -> None:
    """Have a row put and found. On a busy machine that may take more than one try."""

    async def look() -> None:
        while await cache.get(row.user_id) is None:
            cache.put(row)
            await asyncio.sleep(0.02)

    await asyncio.wait_for(look(), 10)


def test_commands_that_need_no_redis_do_not_wait_for_its_library() -> None:
    check = "import sys, litellm_oauth.assembly; sys.exit('redis' in sys.modules)"
    source = str(Path(module.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", check], env={"PYTHONPATH": source}, check=False)
    assert done.returncode == 0


# ---- In the service


@pytest.fixture
def shared(gateways: Gateways, redis_server: RedisServer) -> Gateways:
    """Gateways that have this Redis in common."""
    gateways.environment = redis_environment(redis_server.url)
    return gateways


def redis_environment(url: str) -> dict[str, str]:
    return {"LITELLM_OAUTH_REDIS_URL": url, "LITELLM_OAUTH_REDIS_PASSWORD": PASSWORD}


async def opened(
    gateways: Gateways, host: str = "host", redis_timeout: float = 2.0, **options: Any
) -> TokenService:
    """A service whose cache has connected. A machine that is busy with other tests is no outage."""
    service = await gateways.open(host=host, redis_timeout=redis_timeout, **options)
    cache = service._reader.cache
    assert isinstance(cache, RedisCache)
    cache.open()
    # A listener that connects makes everybody look again; then it is over.
    await eventually(lambda: cache._client and service._memory._listening)
    return service


async def cached(redis_server: RedisServer, generation: int, user: str = "alice") -> dict[str, Any]:
    """What Redis holds of a user, once it is of this generation."""

    def look() -> dict[str, Any] | None:
        found = json.loads(redis_server.contents().get(key_of(user), b"{}"))
        return found if found.get("generation") == generation else None

    found: dict[str, Any] = await eventually(look)
    return found


def say(redis_server: RedisServer, entry: dict[str, Any]) -> None:
    """Have Redis say this of alice, whatever the database says."""
    redis_server.admin.set(key_of("alice"), json.dumps(entry), ex=60)


async def test_only_ciphertext_of_access_tokens_lies_there(
    shared: Gateways, redis_server: RedisServer
) -> None:
    service = await opened(shared)
    await shared.log_in(service)
    found = await cached(redis_server, 1)
    assert found["accessToken"] == shared.row()["access_token_encrypted"]
    await service.refresh("alice", force=True, actor=ACTOR)
    found = await cached(redis_server, 2)
    assert found["accessToken"] == shared.row()["access_token_encrypted"]
    everything = b"".join(redis_server.contents().values()).decode()
    assert (await service.access_token("alice")).value not in everything
    assert shared.row()["refresh_token_encrypted"] not in everything


async def test_a_process_that_never_read_a_user_serves_from_redis_while_the_database_is_away(
    shared: Gateways, redis_server: RedisServer
) -> None:
    shared.limits = QUICK
    first = await opened(shared)
    second = await opened(shared, "elsewhere")
    with second._refresher._changes.watch("alice") as watch:
        await shared.log_in(first)
        await cached(redis_server, 1)
        # What is read while a change is heard of is not trusted.
        await watch.wait(5)
    shared.database.cut_off()
    token, seconds = await timed(second.access_token("alice"))
    assert token == await first.access_token("alice")
    assert seconds < QUICK.pool
    # Also when Redis is gone as well: it is in memory now.
    redis_server.admin.flushall()
    assert await second.access_token("alice") == token
    with pytest.raises(StorageUnavailable):
        await second.access_token("bob")


async def test_a_gateway_connects_before_anybody_asks(shared: Gateways) -> None:
    service = await shared.open(redis_timeout=2.0)
    cache = service._reader.cache
    assert isinstance(cache, RedisCache)
    loop = asyncio.create_task(service.run_background())
    await eventually(lambda: cache._client)
    loop.cancel()


async def test_where_files_decide_there_is_no_redis_between(shared: Gateways) -> None:
    service = await shared.open(use_database=False, single_host=True)
    assert isinstance(service._reader.cache, NoCache)


async def test_what_came_from_redis_is_read_again_at_once(
    shared: Gateways, redis_server: RedisServer
) -> None:
    first = await opened(shared)
    await shared.log_in(first)
    older = await cached(redis_server, 1)
    await first.refresh("alice", force=True, actor=ACTOR)
    await cached(redis_server, 2)
    say(redis_server, older)
    second = await opened(shared, "elsewhere")
    assert (await second.access_token("alice")).generation == 1
    await eventually(lambda: second._memory.entries["alice"].token.generation == 2)


async def test_the_database_has_the_last_word_even_where_redis_counts_higher(
    shared: Gateways, redis_server: RedisServer
) -> None:
    first = await opened(shared)
    await shared.log_in(first)
    say(redis_server, {**await cached(redis_server, 1), "generation": 9})
    second = await opened(shared, "elsewhere")
    assert (await second.access_token("alice")).generation == 9
    await eventually(lambda: second._memory.entries["alice"].token.generation == 1)


async def test_a_token_that_is_due_is_not_taken_from_redis_while_the_database_answers(
    shared: Gateways, redis_server: RedisServer
) -> None:
    shared.limits = QUICK
    first = await opened(shared)
    await shared.log_in(first)
    due = {**await cached(redis_server, 1), "expiresAt": time.time() + 60}
    await first.refresh("alice", force=True, actor=ACTOR)
    await cached(redis_server, 2)
    say(redis_server, due)
    second = await opened(shared, "elsewhere")
    third = await opened(shared, "third")
    assert (await second.access_token("alice")).generation == 2
    await asyncio.sleep(0.05)
    shared.database.cut_off()
    say(redis_server, due)
    assert (await third.access_token("alice")).generation == 1


async def test_a_rejected_token_is_never_replaced_out_of_redis(
    shared: Gateways, redis_server: RedisServer
) -> None:
    shared.limits = QUICK
    first = await opened(shared)
    await shared.log_in(first)
    say(redis_server, {**await cached(redis_server, 1), "generation": 2})
    second = await opened(shared, "elsewhere")
    shared.database.cut_off()
    with pytest.raises(StorageUnavailable):
        await second.replace_rejected("alice", 1)
    assert shared.refreshes() == 0


async def test_nobody_is_served_what_was_copied_from_another_user(
    shared: Gateways, redis_server: RedisServer
) -> None:
    first = await opened(shared)
    await shared.log_in(first)
    await cached(redis_server, 1)
    redis_server.admin.copy(key_of("alice"), key_of("bob"))
    second = await opened(shared, "elsewhere")
    with pytest.raises(NotLoggedIn):
        await second.access_token("bob")


@pytest.mark.parametrize("by", ["logout", "rename", "hand"])
async def test_who_is_logged_out_does_not_come_back_out_of_redis(
    shared: Gateways, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    first = await opened(shared)
    await shared.log_in(first)
    await cached(redis_server, 1)
    if by == "hand":
        shared.database.query(f"DELETE FROM {TOKENS} WHERE user_id = 'alice'")
        await eventually(lambda: "accessToken" not in json.loads(redis_server.contents()[key_of("alice")]))
    else:
        # A listener that is slow, or not connected: whoever logs out sees to it.
        monkeypatch.setattr(Changes, "changed", lambda *_: None)
        if by == "logout":
            await first.logout("alice", actor=ACTOR)
        else:
            await first.rename("alice", "alicia", actor=ACTOR)
        assert await cached(redis_server, 2) == {"generation": 2}
    second = await opened(shared, "elsewhere")
    with pytest.raises(NotLoggedIn):
        await second.access_token("alice")


async def test_a_logout_that_redis_never_heard_of_is_made_good_by_whoever_reads_the_row(
    shared: Gateways, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first one's listener would make it good too, sooner or later.
    monkeypatch.setattr(Changes, "changed", lambda *_: None)
    first = await opened(shared)
    await shared.log_in(first)
    before = await cached(redis_server, 1)
    await first.logout("alice", actor=ACTOR)
    await cached(redis_server, 2)
    say(redis_server, before)
    second = await opened(shared, "elsewhere")
    assert (await second.access_token("alice")).generation == 1
    assert await cached(redis_server, 2) == {"generation": 2}
    with pytest.raises(NotLoggedIn):
        await second.access_token("alice")


async def test_a_login_that_the_provider_ended_is_not_spread(
    shared: Gateways, redis_server: RedisServer
) -> None:
    service = await opened(shared)
    await shared.log_in(service)
    await cached(redis_server, 1)
    await shared.change("status = 'reauth_required'")
    await service.access_token("alice")
    await eventually(lambda: json.loads(redis_server.contents()[key_of("alice")]) == {"generation": 1})


def test_what_the_authority_said_meanwhile_is_kept() -> None:
    memory = TokenMemory()
    read = memory.put("alice", AccessToken("two", 2, 100.0), due_at=90.0, now=0.0)
    assert memory.recall("alice", AccessToken("nine", 9, 100.0), due_at=90.0, now=0.0) is read


async def test_a_logout_while_redis_hangs_takes_no_longer_and_counts_when_it_is_back(
    shared: Gateways, redis_server: RedisServer
) -> None:
    async with wire(redis_server.url) as (line, url):
        shared.environment = redis_environment(url)
        first = await opened(shared, redis_timeout=TIMEOUT)
        cache = first._reader.cache
        assert isinstance(cache, RedisCache)
        cache._pause = PAUSE
        await shared.log_in(first)
        await cached(redis_server, 1)
        line.cut(silent=True)
        _, seconds = await timed(first.logout("alice", actor=ACTOR))
        assert seconds < 4 * TIMEOUT
        with pytest.raises(NotLoggedIn):
            await first.access_token("alice")
        line.mend()
        assert await cached(redis_server, 2) == {"generation": 2}


async def test_a_user_who_logs_out_while_redis_is_asked_is_not_served(
    shared: Gateways, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await opened(shared)
    second = await opened(shared, "elsewhere")
    await shared.log_in(first)
    await cached(redis_server, 1)
    # No listener, so that it is the logout itself that counts.
    monkeypatch.setattr(Changes, "changed", lambda *_: None)
    cache = second._reader.cache
    get = cache.get

    async def slow(user: str) -> CachedToken | None:
        found = await get(user)
        await second.logout("alice", actor=ACTOR)
        return found

    monkeypatch.setattr(cache, "get", slow)
    with pytest.raises(NotLoggedIn):
        await second.access_token("alice")
    assert "alice" not in second._memory.entries


async def test_a_redis_that_hangs_delays_a_request_once_and_fails_none(
    shared: Gateways, redis_server: RedisServer
) -> None:
    async with wire(redis_server.url) as (line, url):
        shared.environment = redis_environment(url)
        service = await opened(shared, redis_timeout=0.5)
        shared.plant([f"user {n}" for n in range(20)], expires_in=3600)
        line.cut(silent=True)
        tokens, seconds = await timed(asyncio.gather(*(service.access_token(f"user {n}") for n in range(10))))
        assert len(tokens) == 10
        assert seconds < 2.0
        _, seconds = await timed(asyncio.gather(*(service.access_token(f"user {n}") for n in range(10, 20))))
        assert seconds < 0.5


async def test_what_the_files_say_in_an_outage_is_not_spread_by_redis(
    shared: Gateways, redis_server: RedisServer
) -> None:
    shared.limits = QUICK
    clock = MovableClock()
    first = await opened(shared, single_host=True, clock=clock)
    await shared.log_in(first)
    await cached(redis_server, 1)
    redis_server.admin.flushall()
    shared.database.cut_off()
    clock.ahead = 28_900
    assert (await first.access_token("alice")).generation == 2
    await asyncio.sleep(0.1)
    assert key_of("alice") not in redis_server.contents()
