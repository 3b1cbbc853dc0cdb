"""Runs one command and turns its outcome into output and an exit code. Only ``export`` prints a token."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from ..errors import (
    AlreadyLoggedIn,
    CodeRejected,
    InvalidInput,
    LitellmOAuthError,
    LoginError,
    NotLoggedIn,
    ProviderError,
    ReauthRequired,
    StorageUnavailable,
    Unreadable,
)
from ..gateway import views
from ..results import Actor, StartedLogin
from ..service import TokenService
from ..settings import load_settings
from ..stores.documents import SOURCE as FILE
from ..stores.documents import document_path
from ..tokens import Status, UserStatus
from . import text
from .arguments import DEFAULT_USER, Arguments, parse
from .everybody import refresh_all
from .exit_codes import FINE, NOT_LOGGED_IN, PROVIDER_REFUSED, STORAGE_UNAVAILABLE, WRONG_USE
from .transfer import export_login, import_login, read_login
from .users import list_users

Command = Callable[[TokenService, Arguments], Awaitable[int]]

# Seconds to wait for a database that is starting; a person waits for the answer.
_PATIENCE = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``litellm claude`` with ``argv`` (default: the process's own arguments). Returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return asyncio.run(_run(_command(arguments), arguments))
    except LitellmOAuthError as error:
        _complain(error, arguments)
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE


def exit_code(error: LitellmOAuthError) -> int:
    """1 no usable login, 2 wrong use, 3 the provider refused or cannot be reached, 4 storage."""
    if isinstance(error, NotLoggedIn | ReauthRequired):
        return NOT_LOGGED_IN
    if isinstance(error, ProviderError | CodeRejected):
        return PROVIDER_REFUSED
    if isinstance(error, StorageUnavailable | Unreadable):
        return STORAGE_UNAVAILABLE
    return WRONG_USE


def _command(arguments: Arguments) -> Command:
    """What to do once the service is open. A login to be imported and a code are read before: a person may
    type them, and Ctrl-C ends that."""
    if arguments.command == "import":
        return partial(import_login, login=read_login(arguments), actor=_actor())
    if arguments.command == "callback":
        return partial(_callback, code=_read_code(arguments.code))
    return _COMMANDS[arguments.command]


async def _run(command: Command, arguments: Arguments) -> int:
    # Imported late: wrong use and --help need no database driver.
    from ..assembly import open_service

    service = await open_service(load_settings(), patience=_PATIENCE)
    try:
        return await command(service, arguments)
    finally:
        await service.close()


async def _login(service: TokenService, arguments: Arguments) -> int:
    try:
        started = await service.start_login(arguments.user, actor=_actor(), again=arguments.force)
    except AlreadyLoggedIn as error:
        status = {"already_logged_in": True, "message": error.message}
        status |= views.status(await service.status(arguments.user))
        _print(arguments, status, text.already(arguments.user, error.message))
        return FINE
    _print(arguments, views.started_login(started), text.login(started, _user_option(arguments)))
    if arguments.json or not _on_terminal():
        return FINE
    code = _ask_for_code(started)
    return await _complete(service, arguments, code, None) if code else FINE


async def _callback(service: TokenService, arguments: Arguments, *, code: str) -> int:
    return await _complete(service, arguments, code, arguments.state)


async def _complete(service: TokenService, arguments: Arguments, code: str, state: str | None) -> int:
    status = await service.complete_login(arguments.user, code, state, actor=_actor())
    _print(arguments, views.status(status), text.logged_in(status))
    return FINE


async def _status(service: TokenService, arguments: Arguments) -> int:
    status = await service.status(arguments.user)
    _print(arguments, views.status(status), text.status(status, _where(status), _user_option(arguments)))
    return FINE if status.authenticated and status.status is not Status.EXPIRED else NOT_LOGGED_IN


async def _refresh(service: TokenService, arguments: Arguments) -> int:
    if arguments.all:
        return await refresh_all(service, arguments, _actor())
    outcome = await service.refresh(
        arguments.user, min_validity=arguments.min_validity, force=arguments.force, actor=_actor()
    )
    _print(arguments, views.refresh(outcome), text.refreshed(outcome))
    return FINE


async def _logout(service: TokenService, arguments: Arguments) -> int:
    outcome = await service.logout(arguments.user, actor=_actor())
    _print(arguments, views.logout(outcome), text.logged_out(outcome))
    return FINE


async def _export(service: TokenService, arguments: Arguments) -> int:
    return await export_login(service, arguments, _actor())


_COMMANDS: Mapping[str, Command] = {
    "login": _login,
    "status": _status,
    "refresh": _refresh,
    "logout": _logout,
    "export": _export,
    "users": list_users,
}


def _on_terminal() -> bool:
    """Whether somebody can answer a question. A stream that was closed at the start is None."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _ask_for_code(started: StartedLogin) -> str:
    """Wait on the terminal for a pasted code, no longer than the login itself waits."""
    what = "the whole address" if started.whole_address else "the code"
    print(f"\n📋 Paste {what} here (or press Enter to do it later): ", end="", flush=True)
    ready, _, _ = select.select([sys.stdin], [], [], started.expires_in)
    return sys.stdin.readline().strip() if ready else ""


def _read_code(code: str | None) -> str:
    """The argument, or a line of stdin. Raises InvalidInput if there is none."""
    if code == "-":
        # stdout may be the caller's JSON, so the prompt goes to stderr.
        if sys.stdin is not None and sys.stdin.isatty():
            print("📋 Paste the code here: ", end="", file=sys.stderr, flush=True)
        code = "" if sys.stdin is None else sys.stdin.readline().strip()
    if not code:
        raise InvalidInput("No code was given. Copy it from the page that the browser shows.")
    return code


def _where(status: UserStatus) -> str:
    """The tier, or the file itself, for people."""
    if status.source != FILE:
        return status.source
    return str(document_path(load_settings().token_file, status.user_id))


def _actor() -> Actor:
    return Actor(name="cli", origin=socket.gethostname())


def _user_option(arguments: Arguments) -> str:
    return "" if arguments.user == DEFAULT_USER else f" --user {shlex.quote(arguments.user)}"


def _print(arguments: Arguments, value: Mapping[str, object], words: str) -> None:
    print(json.dumps(value, indent=2) if arguments.json else words, flush=True)


def _complain(error: LitellmOAuthError, arguments: Arguments) -> None:
    if arguments.json:
        print(json.dumps({"error": {"message": error.message, "code": error.code}}, indent=2), flush=True)
        return
    print(f"❌ {error.message}", file=sys.stderr)
    if isinstance(error, AlreadyLoggedIn):
        # Only an import ends with it, and its message says what to do.
        return
    if isinstance(error, NotLoggedIn | ReauthRequired | LoginError):
        hint = f"litellm claude login{_user_option(arguments)}"
        print(f"💡 Start a login with: {hint}", file=sys.stderr)
