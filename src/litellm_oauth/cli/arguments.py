"""The command line of ``litellm claude``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

DEFAULT_USER = "default"

_DESCRIPTION = "Log in to Claude with OAuth, and look after the login that the gateway uses."
_EXAMPLES = """\
examples:
  litellm claude login                     show the URL to open in a browser
  litellm claude callback                  complete the login; asks for the code, or reads it from a pipe
  litellm claude callback 'CODE#STATE'     the same, but the process list shows the code
  litellm claude status                    how the login stands, and for how long
  litellm claude refresh --force           get a new access token now
  litellm claude refresh --all --min-validity 3600
                                           refresh everybody who has less than an hour left
  litellm claude logout                    revoke and forget the tokens
  litellm claude users                     who has or had a login
  (umask 077; litellm claude export > login.json)
                                           the login with its tokens, to be moved elsewhere
  litellm claude import login.json         take such a document, or a plain token file; - reads stdin
  litellm claude login --user alice        the same for somebody else (or: export USER_ID=alice)
  litellm claude status --json | jq .expires_in

exit codes:
  0 fine   1 not logged in or expired   2 wrong use   3 the provider refused   4 storage unavailable
"""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was asked for; None is what was not given. ``user_given``: by the option, on purpose."""

    command: str
    user: str
    user_given: bool
    json: bool
    code: str | None
    state: str | None
    force: bool
    all: bool
    min_validity: float | None
    file: str | None
    after: str | None
    limit: int | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Wrong use shows the whole help: whoever mistypes a command wants to see the commands."""
        self.print_help(sys.stderr)
        self.exit(2, f"\n{self.prog}: {message}\n")


def parse(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Arguments:
    """Raises SystemExit(2) for wrong use and SystemExit(0) for ``--help``."""
    environ = os.environ if environ is None else environ
    parser = _parser()
    parsed = parser.parse_args(_shield_code(list(argv)))
    everybody = getattr(parsed, "all", False)
    user = getattr(parsed, "user", None)
    if everybody and user is not None:
        parser.error("--all means everybody; leave --user out")
    return Arguments(
        command=parsed.command,
        user=user if user is not None else environ.get("USER_ID") or DEFAULT_USER,
        user_given=user is not None,
        json=parsed.json,
        code=getattr(parsed, "code", None),
        state=getattr(parsed, "state", None),
        force=getattr(parsed, "force", False),
        all=everybody,
        min_validity=getattr(parsed, "min_validity", None),
        file=getattr(parsed, "file", None),
        after=getattr(parsed, "after", None),
        limit=getattr(parsed, "limit", None),
    )


def _parser() -> _Parser:
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    of_user = _Parser(add_help=False)
    of_user.add_argument("--user", metavar="USER", help="whose login (default: $USER_ID, else 'default')")
    parser = _Parser(
        prog="litellm claude",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(
        name: str, help_text: str, *, parents: Sequence[_Parser] = (of_user, common)
    ) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=help_text, description=help_text, parents=parents, allow_abbrev=False
        )

    login = command("login", "start a login: shows the URL to open in a browser")
    login.add_argument("--force", action="store_true", help="start a login though one works")
    callback = command("callback", "complete a login with the code that the browser shows")
    callback.add_argument(
        "code",
        metavar="CODE",
        nargs="?",
        default="-",
        help="CODE, CODE#STATE or redirect URL; - or none reads a line of stdin, and asks on a terminal",
    )
    callback.add_argument("--state", help="the state, where CODE does not carry it")
    command("status", "show how the login stands")
    refresh = command("refresh", "get a new access token where the present one ends soon")
    refresh.add_argument("--force", action="store_true", help="refresh however long it is valid")
    refresh.add_argument(
        "--all", action="store_true", help="everybody who is logged in; shows counts, and who failed"
    )
    refresh.add_argument(
        "--min-validity", type=_seconds, metavar="SECONDS", help="refresh where fewer seconds are left"
    )
    command("logout", "revoke the tokens at the provider and forget them")
    command("export", "print the login with its tokens as one JSON document, to be moved elsewhere")
    bring_in = command("import", "take a login from what export printed, or from a plain token file")
    bring_in.add_argument("file", metavar="FILE", nargs="?", default="-", help="- reads stdin (default)")
    bring_in.add_argument("--force", action="store_true", help="take the place of a login that works")
    users = command("users", "list who has or had a login", parents=[common])
    users.add_argument("--after", metavar="USER", help="only those whose id sorts after this one")
    users.add_argument("--limit", type=_positive, metavar="N", help="at most so many (default: all)")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _shield_code(argv: list[str]) -> list[str]:
    """Let a code begin with a dash: base64url codes do, and argparse would take them for an option."""
    if argv[:1] != ["callback"] or "--" in argv:
        return argv
    options, codes, value_follows = [argv[0]], [], False
    for word in argv[1:]:
        name = word.partition("=")[0]
        is_option = name in ("--user", "--state", "--json", "-h", "--help")
        if value_follows or is_option or word == "-" or not word.startswith("-"):
            options.append(word)
        else:
            codes.append(word)
        value_follows = not value_follows and word in ("--user", "--state")
    return [*options, "--", *codes] if codes else argv
