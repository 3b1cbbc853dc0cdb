"""The authorization endpoint (RFC 6749 §3.1) and the page that shows the code."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any
from urllib.parse import parse_qs

from authlib.oauth2.rfc6749 import OAuth2Error
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from . import accounts, faults
from .accounts import Account, AccountNameError
from .oauth_request import authorization_request
from .oauth_server import OAuthAnswer
from .pages import code_page, consent_page, message_page
from .sandbox import BodyTooLargeError, Sandbox, read_body, sandbox_of

_COOKIE = "sandbox_sign_in"
_FORM_BYTES = 8192
_log = logging.getLogger(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]


def for_people(endpoint: Endpoint) -> Endpoint:
    """Refuse a foreign Host: a page of that name could read this page, and press its buttons.

    Links from other sites lead here, and the form's token proves where a decision comes from, so the Origin
    is not checked. Browsers send `Origin: null` with the form, because of the pages' referrer-policy.
    """

    @wraps(endpoint)
    async def guarded(request: Request) -> Response:
        reason = sandbox_of(request).guard.refuse_host(request)
        if reason is None:
            return await endpoint(request)
        if _is_browser(request):
            return message_page("This address is not the sandbox's", reason, status=403)
        return JSONResponse({"error": "access_denied", "error_description": reason}, 403)

    return guarded


async def authorize(request: Request) -> Response:
    sandbox = sandbox_of(request)
    hint = request.query_params.get("login_hint")
    fault = sandbox.faults.take("authorize", lambda: hint)
    return await faults.answer(fault, lambda: _authorize(request, sandbox), sandbox.drop)


async def _authorize(request: Request, sandbox: Sandbox) -> Response:
    try:
        grant = sandbox.server.get_consent_grant(authorization_request(request.url.query))
    except OAuth2Error as error:
        return _refuse(request, error)
    if request.method == "POST":
        return await _decide(request, sandbox, grant)
    hint = request.query_params.get("login_hint", "")
    if _is_browser(request):
        return _ask(request, sandbox, grant, hint)
    try:
        return _redirect(sandbox, grant, _account(sandbox, hint), status=302)
    except AccountNameError as error:
        return JSONResponse({"error": "invalid_request", "error_description": f"login_hint: {error}"}, 400)


async def _decide(request: Request, sandbox: Sandbox, grant: Any) -> Response:
    """The person pressed a button."""
    try:
        body = await read_body(request, _FORM_BYTES)
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    except (ValueError, BodyTooLargeError):
        form = {}
    if not sandbox.forms.redeem(form.get("form_token", ""), request.cookies.get(_COOKIE), request.url.query):
        return message_page(
            "This form cannot be used",
            "It was sent before, is older than ten minutes, or did not come from this browser. "
            "Open the sign-in link again.",
            status=403,
        )
    decision = form.get("decision")
    if decision == "deny":
        return _redirect(sandbox, grant, None, status=303)
    if decision != "allow":
        return message_page(
            "Nothing was decided", "Open the sign-in link again, and allow or deny.", status=400
        )
    try:
        account = _account(sandbox, form.get("account", ""))
    except AccountNameError as error:
        return _ask(request, sandbox, grant, form.get("account", ""), error=str(error))
    return _redirect(sandbox, grant, account, status=303)


def _is_browser(request: Request) -> bool:
    """Somebody is there to be asked. A page's scripts do not ask for text/html; Sec-Fetch tells them."""
    return "text/html" in request.headers.get("accept", "") or "sec-fetch-mode" in request.headers


def _account(sandbox: Sandbox, name: str) -> Account:
    with sandbox.ledger.transaction():
        if not name.strip():
            return sandbox.ledger.new_person()
        account = accounts.named(name)
        sandbox.ledger.remember(account)
        return account


def _ask(request: Request, sandbox: Sandbox, grant: Any, account: str, error: str | None = None) -> Response:
    session = sandbox.forms.session(request.cookies.get(_COOKIE))
    page = consent_page(
        client=grant.request.client.client_id,
        scopes=grant.request.scope.split(),
        account=account,
        action=f"{request.url.path}?{request.url.query}",
        form_token=sandbox.forms.issue(session, request.url.query),
        redirect_uri=grant.redirect_uri,
        error=error,
    )
    page.set_cookie(_COOKIE, session, path=request.url.path, httponly=True, samesite="lax")
    return page


def _redirect(sandbox: Sandbox, grant: Any, account: Account | None, status: int) -> Response:
    """Back to the client with a code, or with access_denied (RFC 6749 §4.1.2)."""
    with sandbox.ledger.transaction():
        answer: OAuthAnswer = sandbox.server.create_authorization_response(
            grant.request, grant_user=account, grant=grant
        )
    sandbox.records.event("authorizations_denied" if account is None else "authorizations_granted")
    _log.info("authorization %s", "denied" if account is None else f"granted by {account.email}")
    # RFC 9700 §4.12: 303 after a form, so that no browser sends the form on.
    return RedirectResponse(answer.headers["Location"], status, {"cache-control": "no-store"})


def _refuse(request: Request, error: OAuth2Error) -> Response:
    """To the client if its redirect URI is known to be right, else to the person only (RFC 6749 §4.1.2.1)."""
    if error.redirect_uri:
        location = dict(error()[2])["Location"]
        return RedirectResponse(location, 302, {"cache-control": "no-store"})
    description = error.get_error_description() or "The request cannot be understood."
    if not _is_browser(request):
        return JSONResponse({"error": error.error, "error_description": description}, 400)
    return message_page(
        "This sign-in link is wrong",
        description,
        detail=f"Error: {error.error}. Nothing was sent to the application.",
        status=400,
    )


async def code_callback(request: Request) -> Response:
    """What the redirect leads to where the application has no address of its own."""
    parameters = request.query_params
    error, code, state = (parameters.get(name) for name in ("error", "code", "state"))
    if error == "access_denied":
        return message_page(
            "Access was denied",
            "No code was made, and the application has no access. To allow it, open the sign-in link again.",
            detail="Error: access_denied.",
        )
    if error:
        return message_page(
            "The sign-in failed",
            parameters.get("error_description", "The authorization request was refused."),
            detail=f"Error: {error}. Start the login again in the application.",
            status=400,
        )
    if not code:
        return message_page(
            "There is no code here",
            "This page shows a code after a sign-in. Start a login to get one.",
            status=400,
        )
    return code_page(code if state is None else f"{code}#{state}")


ROUTES = [
    Route("/oauth/authorize", for_people(authorize), methods=["GET", "POST"]),
    Route("/oauth/code/callback", for_people(code_callback), methods=["GET"]),
]
