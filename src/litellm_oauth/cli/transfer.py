"""``litellm claude export`` and ``import``: a login taken out with its tokens, and brought in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidInput
from ..gateway import views
from ..results import Actor
from ..service import TokenService
from ..tokens import ExportedLogin
from . import text
from .arguments import Arguments
from .document import document_of, login_of
from .exit_codes import FINE

# A document has a few kilobytes.
MAX_BYTES = 1_048_576
_STDIN = 0


async def export_login(service: TokenService, arguments: Arguments, actor: Actor) -> int:
    """Print the one document with tokens that any command prints. Returns the exit code."""
    login = await service.export_login(arguments.user, actor=actor)
    print(text.exported(login), file=sys.stderr, flush=True)
    print(json.dumps(document_of(login), indent=2), flush=True)
    return FINE


async def import_login(
    service: TokenService, arguments: Arguments, *, login: ExportedLogin, actor: Actor
) -> int:
    """Store the login that was read. Returns the exit code."""
    status = await service.import_login(arguments.user, login, actor=actor, again=arguments.force)
    print(json.dumps(views.status(status), indent=2) if arguments.json else text.imported(status), flush=True)
    return FINE


def read_login(arguments: Arguments) -> ExportedLogin:
    """The login to import. Raises InvalidInput, also where it is another user's and nobody said whose."""
    login = login_of(_content(arguments.file or "-"))
    if login.user_id in (None, arguments.user) or arguments.user_given:
        return login
    raise InvalidInput(
        f"The login is of {login.user_id} and would become that of {arguments.user}. Say on purpose whose it "
        "is to be, with --user."
    )


def _content(file: str) -> bytes:
    try:
        with _opened(file) as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"{file} is longer than {MAX_BYTES} bytes, so it is no login.")
    return content


def _opened(file: str) -> BinaryIO:
    if file != "-":
        return Path(file).open("rb")
    if os.isatty(_STDIN):
        print("📋 Paste the document, then press Enter and Ctrl-D:", file=sys.stderr, flush=True)
    return os.fdopen(_STDIN, "rb", closefd=False)
