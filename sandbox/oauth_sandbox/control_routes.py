"""Control routes for tests and rehearsals: what was seen, what shall go wrong, what shall end.

They need no credential: the sandbox is published on loopback and holds nothing real. Web pages get a 403.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .control_input import (
    ControlInputError,
    parse_account,
    parse_account_name,
    parse_accounts,
    parse_fault,
    parse_flag,
    parse_knobs,
    parse_object,
    parse_rule,
    parse_seconds,
)
from .responses import AsciiJSONResponse
from .sandbox import BodyTooLargeError, read_body, sandbox_of

_BODY_BYTES = 65_536
Handler = Callable[[Request, bytes], object]


def _control(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Read the body, run the handler, and turn what is wrong into one JSON error."""

    async def endpoint(request: Request) -> Response:
        if reason := sandbox_of(request).guard.refuse_page(request):
            return _error(403, "forbidden", reason)
        try:
            return AsciiJSONResponse(handler(request, await read_body(request, _BODY_BYTES)))
        except ControlInputError as error:
            return _error(400, "invalid_control_input", str(error))
        except BodyTooLargeError:
            return _error(413, "invalid_control_input", f"The body is longer than {_BODY_BYTES} bytes.")

    return endpoint


def _error(status: int, kind: str, message: str) -> Response:
    return AsciiJSONResponse({"error": {"type": kind, "message": message}}, status)


def requests(request: Request, body: bytes) -> object:
    """The API calls since a moment (seconds since the epoch), oldest first, of one account or of all."""
    since = parse_seconds("since", request.query_params.get("since"))
    account = parse_account_name(request.query_params.get("account"))
    calls = sandbox_of(request).records.calls(since, account)
    return [asdict(call) for call in calls]


def token_calls(request: Request, body: bytes) -> object:
    account = parse_account_name(request.query_params.get("account"))
    return sandbox_of(request).records.token_calls(account)


def counters(request: Request, body: bytes) -> object:
    return sandbox_of(request).records.counters()


def logins(request: Request, body: bytes) -> object:
    return sandbox_of(request).ledger.logins(parse_account(request.query_params.get("account")))


def log_in(request: Request, body: bytes) -> object:
    """Logins without a browser: the token answer of each account."""
    accounts = parse_accounts(parse_object(body, ("accounts",)).get("accounts"))
    sandbox = sandbox_of(request)
    with sandbox.ledger.transaction():
        return [sandbox.server.log_in(account) for account in accounts]


def show_rules(request: Request, body: bytes) -> object:
    return [rule.described() for rule in sandbox_of(request).rules.rules()]


def register_rule(request: Request, body: bytes) -> object:
    """A workload that may have tokens, as an organization's administrator registers it."""
    rule = parse_rule(body)
    sandbox_of(request).rules.register(rule)
    return rule.described()


def forget_rules(request: Request, body: bytes) -> object:
    sandbox_of(request).rules.forget()
    return show_rules(request, body)


def show_faults(request: Request, body: bytes) -> object:
    book = sandbox_of(request).faults
    return {"armed": [fault.described() for fault in book.armed], "struck": dict(book.struck)}


def arm_fault(request: Request, body: bytes) -> object:
    fault = parse_fault(body)
    sandbox_of(request).faults.arm(fault)
    return fault.described()


def disarm_faults(request: Request, body: bytes) -> object:
    sandbox_of(request).faults.disarm()
    return show_faults(request, body)


def show_settings(request: Request, body: bytes) -> object:
    return asdict(sandbox_of(request).knobs.now)


def change_settings(request: Request, body: bytes) -> object:
    sandbox = sandbox_of(request)
    knobs = sandbox.knobs.turn(parse_knobs(body))
    sandbox.clock.skew = knobs.clock_skew_seconds
    return asdict(knobs)


def reset_settings(request: Request, body: bytes) -> object:
    sandbox = sandbox_of(request)
    sandbox.knobs.reset()
    sandbox.clock.skew = sandbox.knobs.now.clock_skew_seconds
    return asdict(sandbox.knobs.now)


def expire(request: Request, body: bytes) -> object:
    """End access tokens now, and refresh tokens too where that is asked for."""
    given = parse_object(body, ("account", "refresh_tokens"))
    account = parse_account(given.get("account"))
    with_refresh_tokens = parse_flag("refresh_tokens", given.get("refresh_tokens", False))
    ledger = sandbox_of(request).ledger
    with ledger.transaction():
        answer = {"access_tokens": ledger.expire("access", account)}
        if with_refresh_tokens:
            answer["refresh_tokens"] = ledger.expire("refresh", account)
    return answer


def revoke(request: Request, body: bytes) -> object:
    """Withdraw logins, as the account's owner can at a real provider."""
    account = parse_account(parse_object(body, ("account",)).get("account"))
    return {"logins": sandbox_of(request).ledger.revoke_account(account, "withdrawn_by_owner")}


def reset(request: Request, body: bytes) -> object:
    """Faults, settings, records and counters as at the start; logins stay, unless asked otherwise."""
    logins_too = parse_flag("logins", parse_object(body, ("logins",)).get("logins", False))
    sandbox = sandbox_of(request)
    reset_settings(request, body)
    sandbox.faults.clear()
    sandbox.records.reset()
    if logins_too:
        sandbox.ledger.forget_everything()
    return {"reset": True, "logins_forgotten": logins_too}


def _route(path: str, method: str, handler: Handler) -> Route:
    return Route(f"/control/{path}", _control(handler), methods=[method], name=handler.__name__)


ROUTES = [
    _route("requests", "GET", requests),
    _route("token-calls", "GET", token_calls),
    _route("counters", "GET", counters),
    _route("logins", "GET", logins),
    _route("logins", "POST", log_in),
    _route("federation", "GET", show_rules),
    _route("federation", "POST", register_rule),
    _route("federation", "DELETE", forget_rules),
    _route("faults", "GET", show_faults),
    _route("faults", "POST", arm_fault),
    _route("faults", "DELETE", disarm_faults),
    _route("settings", "GET", show_settings),
    _route("settings", "POST", change_settings),
    _route("settings", "DELETE", reset_settings),
    _route("expire", "POST", expire),
    _route("revoke", "POST", revoke),
    _route("reset", "POST", reset),
]
