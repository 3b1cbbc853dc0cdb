"""The HTTP routes under /auth/claude/oauth: login, status, refresh of one or all, logout, users, health.

They take a service and a way to authenticate, and know nothing of LiteLLM. Every answer is JSON and is never
cached: an authorization URL or a status is for the one who asked, now.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastapi import APIRouter, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ..errors import Forbidden, InvalidInput, LitellmOAuthError
from ..results import Actor
from ..service import TokenService
from ..settings import Settings
from . import bodies, openapi, views
from .acting import acting_for
from .answers import NO_STORE, ErrorAnswer, answer_for
from .exchange import origin_or
from .identity import ANONYMOUS, USER_HEADER, Caller, named_in_header

if TYPE_CHECKING:
    from . import shapes

PREFIX = "/auth/claude/oauth"

ServiceProvider = Callable[[], TokenService]
Authenticate = Callable[[Request], Awaitable[Caller]]

_log = logging.getLogger(__name__)
_KEY_HEADERS = (
    "authorization",
    "x-api-key",
    "x-litellm-api-key",
    "api-key",
    "x-goog-api-key",
    "ocp-apim-subscription-key",
)
# For the document alone: ``authenticate`` decides.
_KEY_IN_DOCUMENT = HTTPBearer(
    scheme_name="GatewayKey",
    description="The master key or a user's key. LiteLLM takes it in other headers, too.",
    auto_error=False,
)


class _Route(APIRoute):
    """Turns every error into the one shape of error bodies; no traceback leaves a route."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except LitellmOAuthError as error:
                answer = answer_for(error)
            except Exception:
                _log.exception("A route of the OAuth module failed")
                message = "The gateway failed to answer. Its log says why."
                answer = ErrorAnswer(500, message, "internal_error")
            return _error(answer)

        return guarded

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The framework's answer to a wrong method has another shape than all our errors."""
        known = self.methods or ()
        if scope["method"] in known:
            await super().handle(scope, receive, send)
            return
        allowed = ", ".join(sorted(known))
        message = f"This route knows another method only. Use {allowed}."
        answer = ErrorAnswer(405, message, "method_not_allowed", {"Allow": allowed})
        await _error(answer)(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Call:
    """One authenticated request: for whom it acts, who is behind it, and what it says."""

    user: str
    actor: Actor
    caller: Caller
    query: dict[str, str]
    body: dict[str, Any]


class _Api:
    def __init__(
        self,
        service_provider: ServiceProvider,
        authenticate: Authenticate,
        settings: Settings,
    ) -> None:
        self._service = service_provider
        self._authenticate = authenticate
        self._settings = settings

    async def start(self, request: Request) -> Response:
        """Begin a login: the URL to open in a browser, and its state.

        409 already_logged_in where a working login exists, unless ``force=true``.
        """
        call = await self._call(request, query=("user_id", "force"), anonymous=True)
        again = bodies.boolean(call.query, "force")
        started = await self._service().start_login(call.user, actor=call.actor, again=again)
        return _answer(views.started_login(started))

    async def exchange(self, request: Request) -> Response:
        """Complete a login. ``code`` is the bare code, ``code#state`` or the whole redirect URL."""
        call = await self._call(request, fields=("code", "state"), anonymous=True)
        code = bodies.required_text(call.body, "code", "the code, code#state, or the whole redirect URL")
        state = bodies.text(call.body, "state")
        status = await self._service().complete_login(call.user, code, state, actor=call.actor)
        body: shapes.CompletedLogin = {"message": f"{call.user} is logged in.", **views.status(status)}
        return _answer(body)

    async def status(self, request: Request) -> Response:
        """How a user's login stands, without its tokens."""
        call = await self._call(request, anonymous=True)
        return _answer(views.status(await self._service().status(call.user)))

    async def refresh(self, request: Request) -> Response:
        """Refresh where less than ``min_validity`` seconds are left, or always by ``force``.

        With ``all`` an administrator begins that for everybody who is logged in: 202 and the id of a job
        that nobody waits for. One that runs already is not begun twice.
        """
        call = await self._call(request, fields=("min_validity", "force", "all"))
        if bodies.boolean(call.body, "all"):
            return await self._refresh_all(request, call)
        min_validity = bodies.seconds(call.body, "min_validity")
        force = bodies.boolean(call.body, "force")
        outcome = await self._service().refresh(
            call.user, min_validity=min_validity, force=force, actor=call.actor
        )
        return _answer(views.refresh(outcome))

    async def refresh_job(self, request: Request) -> Response:
        """How a refresh of all users goes, and what became of each user, page by page.

        ``next`` goes back as ``after``. Results come in batches: all of them are there once it has ended.
        """
        call = await self._call(request, query=("after", "limit", "result"))
        _demand_admin(call, "see how the refresh of all users goes")
        job_id = _job_id(request.path_params["job_id"])
        after = bodies.text(call.query, "after")
        limit = bodies.count(call.query, "limit", default=100, high=bodies.MAX_PAGE)
        wanted = bodies.one_of(call.query, "result", openapi.RESULTS)
        # The job first: what it says of itself is never ahead of the results.
        job = await self._service().job(job_id)
        page = await self._service().job_results(job_id, after=after, limit=limit, result=wanted)
        following = page[-1].user_id if len(page) == limit else None
        results = [views.user_result(one) for one in page]
        body: shapes.RefreshJobPage = {**views.job(job), "results": results, "next": following}
        return _answer(body)

    async def logout(self, request: Request) -> Response:
        """Forget the tokens and revoke them at the provider."""
        call = await self._call(request, fields=())
        return _answer(views.logout(await self._service().logout(call.user, actor=call.actor)))

    async def users(self, request: Request) -> Response:
        """Every user's login, page by page, for an administrator. ``next`` goes back as ``after``."""
        call = await self._call(request, query=("after", "limit"))
        _demand_admin(call, "list all users")
        limit = bodies.count(call.query, "limit", default=100, high=bodies.MAX_PAGE)
        page = await self._service().statuses(after=bodies.text(call.query, "after"), limit=limit)
        following = page[-1].user_id if len(page) == limit else None
        body: shapes.UserPage = {"users": [views.status(one) for one in page], "next": following}
        return _answer(body)

    async def health(self, request: Request) -> Response:
        """Whether the module works: ``degraded`` while the database cannot be reached."""
        await self._caller(request, anonymous=False)
        database = await self._service().database_reachable()
        body: shapes.ModuleHealth = {"status": "ok" if database else "degraded", "database": database}
        return _answer(body)

    async def _refresh_all(self, request: Request, call: _Call) -> Response:
        _demand_admin(call, "refresh all users")
        if "user_id" in call.query or USER_HEADER in request.headers:
            raise InvalidInput(
                "all means everybody: leave user_id out, or leave all out to refresh one user."
            )
        min_validity = bodies.seconds(call.body, "min_validity")
        force = bodies.boolean(call.body, "force")
        started = await self._service().start_refresh_all(
            min_validity=min_validity, force=force, actor=call.actor
        )
        location = f"{request.scope.get('root_path', '')}{PREFIX}/refresh/{started.job.job_id}"
        body = views.started_job(started, location)
        return JSONResponse(body, 202, {**NO_STORE, "Location": location})

    async def _call(
        self,
        request: Request,
        *,
        query: tuple[str, ...] = ("user_id",),
        fields: tuple[str, ...] | None = None,
        anonymous: bool = False,
    ) -> _Call:
        """Authenticate first, then read: who has no key learns nothing about what they sent."""
        caller = await self._caller(request, anonymous)
        values = bodies.parse_query(request.query_params.multi_items(), query)
        body = {} if fields is None else bodies.parse_object(await _read(request), fields)
        named = named_in_header(request.headers.getlist(USER_HEADER))
        origin = origin_or(request.client.host if request.client else "unknown")
        user = await acting_for(self._service, caller, origin, named, values.get("user_id"))
        name = "anonymous" if caller is ANONYMOUS else caller.user_id
        _log.debug("%s asks for %s on behalf of %s", name, request.scope["route"].name, user)
        return _Call(user=user, actor=Actor(name=name, origin=origin), caller=caller, query=values, body=body)

    async def _caller(self, request: Request, anonymous: bool) -> Caller:
        keyless = not any(name in request.headers for name in _KEY_HEADERS)
        if anonymous and self._settings.anonymous_api and keyless:
            return ANONYMOUS
        return await self._authenticate(request)


def build_router(
    service_provider: ServiceProvider,
    authenticate: Authenticate,
    settings: Settings,
) -> APIRouter:
    """The routes. ``authenticate`` returns the caller or raises an error of this package (401, 403)."""
    api = _Api(service_provider, authenticate, settings)
    router = APIRouter(
        prefix=PREFIX, tags=["claude oauth"], route_class=_Route, dependencies=[Security(_KEY_IN_DOCUMENT)]
    )
    for path, method, endpoint in (
        ("/start", "GET", api.start),
        ("/exchange", "POST", api.exchange),
        ("/status", "GET", api.status),
        ("/refresh", "POST", api.refresh),
        ("/refresh/{job_id}", "GET", api.refresh_job),
        ("/logout", "POST", api.logout),
        ("/users", "GET", api.users),
        ("/health", "GET", api.health),
    ):
        operation = openapi.OPERATIONS[endpoint.__name__]
        name = f"claude_oauth_{endpoint.__name__}"
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            name=name,
            operation_id=name,
            response_class=JSONResponse,
            responses=operation.responses(),
            openapi_extra=operation.extra(anonymous_api=settings.anonymous_api),
        )
    return router


def _answer(body: Mapping[str, object]) -> Response:
    return JSONResponse(body, headers=NO_STORE)


def _error(answer: ErrorAnswer) -> Response:
    return JSONResponse(answer.body, answer.status, {**NO_STORE, **answer.headers})


def _demand_admin(call: _Call, what: str) -> None:
    if not call.caller.is_admin:
        raise Forbidden(f"Only an administrator may {what}. Any other key is good for one user's own login.")


def _job_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("That is no id of a job; the answer to POST …/refresh gives it.") from None


async def _read(request: Request) -> bytes:
    """The body, up to one byte more than is allowed: what is longer is refused without being kept."""
    received = bytearray()
    try:
        async for chunk in request.stream():
            received += chunk
            if len(received) > bodies.MAX_BODY_BYTES:
                break
    except ClientDisconnect:
        raise InvalidInput("The body broke off.") from None
    return bytes(received)
