"""The pages that people see: self-contained, escaped, and allowed to do nothing but what they are for."""

from __future__ import annotations

import base64
import hashlib
import shlex
from html import escape
from importlib.resources import files
from string import Template
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse

_SCOPES = {
    "user:inference": "Send messages to models on the account's behalf",
    "user:profile": "See the account's address and organization",
}


def _read(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """The name of an inline style or script in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_PAGE, _CONSENT, _CODE, _MESSAGE = (
    Template(_read(f"{name}.html")) for name in ("page", "consent", "code", "message")
)
_STYLE = _read("style.css")
_COPY = _read("copy.js")


def consent_page(
    *,
    client: str,
    scopes: list[str],
    account: str,
    action: str,
    form_token: str,
    redirect_uri: str,
    error: str | None = None,
) -> HTMLResponse:
    """Asks the person. ``error`` says what is wrong with the account that was typed."""
    target = urlsplit(redirect_uri)
    origin = f"{target.scheme}://{target.netloc}"
    content = _CONSENT.substitute(
        client=escape(client),
        scopes="\n".join(
            f"<li>{escape(_SCOPES.get(scope, 'Use this scope'))} <code>{escape(scope)}</code></li>"
            for scope in scopes
        ),
        account=escape(account),
        action=escape(action),
        form_token=escape(form_token),
        redirect_host=escape(target.netloc),
        error=""
        if error is None
        else f'<p class="error" id="account-error" role="alert">{escape(error)}</p>',
        error_id="" if error is None else " account-error",
        invalid="" if error is None else ' aria-invalid="true" autofocus',
    )
    # Browsers apply form-action to the redirect that follows the form, too.
    return _page(
        "Sandbox sign-in", content, status=200 if error is None else 400, form_action=f"'self' {origin}"
    )


def code_page(code: str) -> HTMLResponse:
    """Shows the code for the person to carry over."""
    command = f"ansible-playbook oauth_login.yml -e code={shlex.quote(code)}"
    if "'" not in command:  # the quotes are shown even where this code could do without
        command = f"ansible-playbook oauth_login.yml -e code='{code}'"
    return _page("Your code", _CODE.substitute(code=escape(code), command=escape(command)), script=_COPY)


def message_page(title: str, message: str, *, detail: str = "", status: int = 200) -> HTMLResponse:
    """Says one thing. ``detail`` is small print, for instance an error code."""
    content = _MESSAGE.substitute(
        title=escape(title),
        message=escape(message),
        detail=f'<p class="help">{escape(detail)}</p>' if detail else "",
    )
    return _page(title, content, status=status)


def _page(
    title: str, content: str, *, status: int = 200, script: str = "", form_action: str = "'none'"
) -> HTMLResponse:
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(_STYLE)}; "
        f"script-src {_source(script) if script else repr('none')}; "
        f"form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    )
    html = _PAGE.substitute(
        title=escape(title),
        style=_STYLE,
        content=content,
        script=f"<script>{script}</script>" if script else "",
    )
    return HTMLResponse(
        html,
        status,
        {
            "content-security-policy": policy,
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",  # the address of the code page holds the code
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
        },
    )
