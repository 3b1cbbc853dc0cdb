"""Puts the sandbox together: one ASGI application over one database."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import api_routes, authorize_routes, control_routes, token_routes
from .api_errors import ApiError
from .clock import Clock
from .consent import ConsentForms
from .faults import Drop, FaultBook
from .federation import RuleBook
from .guard import Guard
from .knobs import KnobBoard
from .ledger import Ledger
from .oauth_models import PublicClient
from .oauth_server import SandboxServer
from .pages import message_page
from .records import Records
from .sandbox import Sandbox
from .settings import SCOPES, Settings


def build_app(settings: Settings, connection: sqlite3.Connection, clock: Clock, drop: Drop) -> Starlette:
    """The application. It closes the database when it ends; ``drop`` ends the connection of a request."""
    ledger = Ledger(connection, clock)
    rules = RuleBook(connection)
    knobs = KnobBoard(settings)
    records = Records()
    server = SandboxServer(
        clients=tuple(
            PublicClient(client_id, settings.redirect_uris, SCOPES) for client_id in settings.client_ids
        ),
        scopes=SCOPES,
        ledger=ledger,
        rules=rules,
        knobs=knobs,
        clock=clock,
        records=records,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            ledger.close()

    app = Starlette(
        routes=[
            # the busiest first: routes are tried in order
            *api_routes.ROUTES,
            *token_routes.ROUTES,
            *authorize_routes.ROUTES,
            *control_routes.ROUTES,
            Route("/healthz", _healthz, methods=["GET"]),
            Route("/", _home, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.state.sandbox = Sandbox(
        clock=clock,
        ledger=ledger,
        rules=rules,
        knobs=knobs,
        records=records,
        faults=FaultBook(),
        forms=ConsentForms(clock),
        guard=Guard((settings.host, *settings.names)),
        server=server,
        drop=drop,
    )
    return app


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _home(request: Request) -> Response:
    return message_page(
        "Sandbox provider",
        "This is where sign-ins are tried out. Start a login in the application and open its link.",
    )


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods: a page for people, Anthropic's error shape for programs."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if "text/html" in request.headers.get("accept", ""):
        return message_page(
            "There is nothing here", "The address or the method is not one of the sandbox's.", status=status
        )
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    response = ApiError(status, "not_found_error", "The sandbox has no such route or method.").response(
        "req_sandbox"
    )
    response.headers.update(headers)
    return response
