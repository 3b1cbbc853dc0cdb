"""The parts of one running sandbox, as every route gets them."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from .clock import Clock
from .consent import ConsentForms
from .faults import Drop, FaultBook
from .federation import RuleBook
from .guard import Guard
from .knobs import KnobBoard
from .ledger import Ledger
from .oauth_server import SandboxServer
from .records import Records


@dataclass(frozen=True, slots=True)
class Sandbox:
    """``drop`` ends the connection that a request came on."""

    clock: Clock
    ledger: Ledger
    rules: RuleBook
    knobs: KnobBoard
    records: Records
    faults: FaultBook
    forms: ConsentForms
    guard: Guard
    server: SandboxServer
    drop: Drop


def sandbox_of(request: Request) -> Sandbox:
    found: Sandbox = request.app.state.sandbox
    return found


class BodyTooLargeError(Exception):
    """The body is longer than the route takes."""


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises BodyTooLargeError beyond ``limit`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLargeError
    return bytes(body)
