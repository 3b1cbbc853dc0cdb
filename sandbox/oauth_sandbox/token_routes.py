"""The token endpoint (RFC 6749 §3.2) and the revocation endpoint (RFC 7009)."""

from __future__ import annotations

import logging

from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Error
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import faults
from .oauth_models import GRANT_TYPES
from .oauth_request import SandboxRequest, body_request
from .oauth_server import OAuthAnswer
from .sandbox import BodyTooLargeError, Sandbox, read_body, sandbox_of

_BODY_BYTES = 65_536
_log = logging.getLogger(__name__)


async def token(request: Request) -> Response:
    sandbox = sandbox_of(request)
    try:
        parsed = await _parse(request)
    except OAuth2Error as error:
        sandbox.records.token_call(None, "other", error.error)
        return _refusal(error)
    grant_type = parsed.payload.grant_type
    label = grant_type if grant_type in GRANT_TYPES else "other"
    account = _account_of(sandbox, parsed)
    fault = sandbox.faults.take("token", lambda: account, grant_type)
    if fault is not None and not fault.after and fault.kind != "slow":
        sandbox.records.token_call(account, label, f"fault_{fault.kind}")

    async def effect() -> Response:
        with sandbox.ledger.transaction():
            answer: OAuthAnswer = sandbox.server.create_token_response(parsed)
        sandbox.records.token_call(account, label, answer.outcome)
        _log.info("token: %s by %s: %s", label, account or "nobody known", answer.outcome)
        return JSONResponse(answer.body, answer.status, answer.headers)

    return await faults.answer(fault, effect, sandbox.drop)


async def revoke(request: Request) -> Response:
    sandbox = sandbox_of(request)
    try:
        parsed = await _parse(request)
    except OAuth2Error as error:
        sandbox.records.event(f"revocations_{error.error}")
        return _refusal(error)
    account = _account_of(sandbox, parsed)
    fault = sandbox.faults.take("revoke", lambda: account)

    async def effect() -> Response:
        with sandbox.ledger.transaction():
            answer: OAuthAnswer = sandbox.server.create_endpoint_response("revocation", parsed)
        sandbox.records.event(f"revocations_{answer.outcome}")
        _log.info("revocation by %s: %s", account or "nobody known", answer.outcome)
        return JSONResponse(answer.body, answer.status, answer.headers)

    return await faults.answer(fault, effect, sandbox.drop)


async def _parse(request: Request) -> SandboxRequest:
    try:
        body = await read_body(request, _BODY_BYTES)
    except BodyTooLargeError:
        raise InvalidRequestError(f"The body is longer than {_BODY_BYTES} bytes.", status_code=413) from None
    return body_request(request.url.path, request.url.query, request.headers, body)


def _account_of(sandbox: Sandbox, request: SandboxRequest) -> str | None:
    """Whose code, token or rule was sent, for the records and for faults that strike one account."""
    form = request.form
    if code := form.get("code"):
        found = sandbox.ledger.code(code)
        return None if found is None else found.account.name
    if rule := form.get("federation_rule_id"):
        named = sandbox.rules.find(rule)
        return None if named is None else named.account
    if presented := form.get("refresh_token") or form.get("token"):
        issued = sandbox.ledger.token(presented)
        return None if issued is None else issued.account.name
    return None


def _refusal(error: OAuth2Error) -> Response:
    status, body, headers = error()
    return JSONResponse(body, status, dict(headers))


ROUTES = [
    Route("/v1/oauth/token", token, methods=["POST"]),
    Route("/v1/oauth/token/revoke", revoke, methods=["POST"]),
]
