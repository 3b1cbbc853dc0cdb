"""Paths below ``/anthropic/``: which of them are the API's, told before anybody else reads them.

A path is decoded once. What could then be read in two ways is refused, so that no server behind the gateway
finds another path in it than the one that was judged (RFC 3986 §6.2.2, §7.3).
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ..errors import InvalidInput

# Where the API is, below its address. A credential opens nothing else of the host.
_API = "v1"
_SEGMENT = re.compile(rb"[A-Za-z0-9._~-]+")


def api_path(raw: bytes) -> str:
    """The path below the API's address for what follows ``/anthropic/`` in the request line.

    Raises InvalidInput for a path that is none of the API's: outside ``v1/``, with ``..`` or a segment ``.``,
    an empty segment, anything but unreserved characters (RFC 3986 §2.3), or a way to the authorization
    server.
    """
    segments = [unquote_to_bytes(segment) for segment in raw.removesuffix(b"/").split(b"/")]
    if not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise InvalidInput(
            "The path below /anthropic/ holds an empty segment or a character that no path of the API has. "
            "Send letters, digits and . _ ~ - between slashes."
        )
    if any(segment == b"." or b".." in segment for segment in segments):
        raise InvalidInput("The path below /anthropic/ holds .. or . as a segment. Send it without.")
    path = b"/".join(segments).decode("ascii")
    if segments[0] != _API.encode() or len(segments) < 2:
        raise InvalidInput(f"The path below /anthropic/ is none of the API's. It begins with {_API}/.")
    if any("oauth" in segment.lower() for segment in path.split("/")):
        # What an authorization server refuses says nothing about the token that came along.
        raise InvalidInput("The path is none of the API's: logins are made at /auth/claude/oauth.")
    return path
