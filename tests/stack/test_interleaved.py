"""Many users at once, while their tokens die: each request goes out with its caller's own token.

INTERLEAVED_REQUESTS and INTERLEAVED_USERS ask for more: `INTERLEAVED_REQUESTS=100000 INTERLEAVED_USERS=50`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from support.stack import Stack, log_in, log_out

REQUESTS = int(os.environ.get("INTERLEAVED_REQUESTS", "1000"))
USERS = int(os.environ.get("INTERLEAVED_USERS", "8"))
SEED = int(os.environ.get("CHAOS_SEED", str(time.time_ns() % 1_000_000)))
CLIENTS = 32
# The sandbox remembers 20,000 calls.
BATCH = 5000
# A token that dies again sooner than this after its replacement is not replaced at once; seconds.
REST = 65.0


def chat(question: str) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": question}], "max_tokens": 50}


def messages(question: str) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {"messages": [{"role": "user", "content": question}], "max_tokens": 50}


def responses(question: str) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"input": question}


def pass_through(question: str) -> tuple[str, dict[str, Any]]:
    path, body = messages(question)
    return f"/anthropic{path}", body


ROUTES: list[Callable[[str], tuple[str, dict[str, Any]]]] = [chat, messages, responses, pass_through]


@pytest.fixture(scope="module")
def accounts(gateway: httpx.Client) -> Iterator[dict[str, str]]:
    """Users, and their accounts at the provider."""
    users = [f"interleaved-{number}" for number in range(USERS)]
    yield {user: log_in(gateway, user)["account"]["account"]["email_address"].split("@")[0] for user in users}
    for user in users:
        log_out(gateway, user)


@pytest.mark.timeout(120 + REQUESTS // 20)
def test_each_request_carries_its_own_callers_token_whoevers_token_dies(
    stack: Stack, sandbox: httpx.Client, accounts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = random.Random(SEED)  # noqa: S311 -- chance, not secrecy
    died: dict[str, float] = {}
    deaths: Counter[str] = Counter()
    carried = 0

    async def ask(client: httpx.AsyncClient, user: str, number: int) -> None:
        question = f"{user} asks number {number}"
        path, body = numbers.choice(ROUTES)(question)
        stream = {"stream": True} if path != "/v1/responses" and numbers.random() < 0.3 else {}
        headers = {"x-litellm-oauth-user": user}
        answer = await client.post(path, json={"model": "claude-haiku", **body, **stream}, headers=headers)
        assert answer.status_code == 200, (user, path, answer.text)
        assert stream or question in answer.text

    async def die(client: httpx.AsyncClient) -> None:
        while True:
            await asyncio.sleep(numbers.uniform(0.05, 0.5))
            user = numbers.choice(list(accounts))
            answer = await client.get("/auth/claude/oauth/status", params={"user_id": user})
            replaced = datetime.fromisoformat(answer.json()["updated_at"]).timestamp()
            if user not in died or died[user] < replaced < time.time() - REST:
                died[user] = time.time()
                deaths[user] += 1
                body = {"account": accounts[user]}
                (await client.post(f"{stack.sandbox_url}/control/expire", json=body)).raise_for_status()

    async def run(first: int, last: int) -> None:
        limits = httpx.Limits(max_connections=CLIENTS + 1)
        headers = {"Authorization": f"Bearer {stack.key}"}
        async with httpx.AsyncClient(
            base_url=stack.gateway_url, headers=headers, timeout=60, limits=limits
        ) as client:
            dying = asyncio.create_task(die(client))
            queue = iter(range(first, last))

            async def work() -> None:
                for number in queue:
                    await ask(client, numbers.choice(list(accounts)), number)

            await asyncio.gather(*(work() for _ in range(CLIENTS)))
            dying.cancel()

    for first in range(0, REQUESTS, BATCH):
        last = min(REQUESTS, first + BATCH)
        since = time.time()
        asyncio.run(run(first, last))
        seen = sandbox.get("/control/requests", params={"since": since}, timeout=60).json()
        whole = [
            record for record in seen if record["status"] == 200 and " asks number " in record["question"]
        ]
        foreign = [r for r in whole if accounts[r["question"].split(" ")[0]] != r["account"]]
        assert foreign == []
        answered = {int(record["question"].rsplit(" ", 1)[1]) for record in whole}
        assert answered == set(range(first, last))
        carried += len(answered)
    with capsys.disabled():
        print(f"\n{carried} requests of {USERS} users (seed {SEED}), deaths {deaths.total()}: all answered")  # noqa: T201 -- the figure is what people run it for
    assert deaths
