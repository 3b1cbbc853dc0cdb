# SPDX-License-Identifier: MIT
"""What a person pastes to complete a login, checked before anything is sent.

The gateway parses the same forms again and matches the state; a fault here costs no pending login.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from ansible.module_utils.litellm_oauth_http import GatewayError

MAX_LENGTH = 8192
# Straight and typographic quotes, which mail and chat programs put around what is copied.
_QUOTES = "\"'`<>\u201c\u201d\u2018\u2019"
# RFC 6749 A.11: a code is printable ASCII. A space inside means that more than the code was pasted.
_CODE = re.compile(r"[\x21-\x7e]{1,4096}")
# What the instructions show where the code belongs. To send it would use the login up.
_PLACEHOLDERS = ("PASTE-IT-HERE", "CODE", "<CODE>", "...", "YOUR_AUTH_CODE")
_MEND = "Paste the code, code#state, or the whole address of the page that shows it."


@dataclass(frozen=True)
class LoginCode:
    """The two parts of what was pasted; the state is None where only the code was."""

    code: str = field(repr=False)
    state: str | None = field(repr=False)


def parse_code(text: str) -> LoginCode:
    """Split the bare code, ``code#state`` or the redirect URL. Raises GatewayError, never with the text."""
    if len(text) > MAX_LENGTH:
        raise GatewayError(f"`code` is longer than {MAX_LENGTH} characters. {_MEND}", "invalid_input")
    cleaned = text.strip().strip(_QUOTES).strip()
    if not cleaned:
        raise GatewayError(f"`code` is empty. {_MEND}", "invalid_input")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", cleaned):
        code, state = _from_url(cleaned)
    else:
        code, _, state = cleaned.partition("#")
    if not _CODE.fullmatch(code) or code in _PLACEHOLDERS:
        raise GatewayError(f"No authorization code was found in `code`. {_MEND}", "invalid_input")
    return LoginCode(code, state or None)


def _from_url(url: str) -> tuple[str, str]:
    try:
        split = urlsplit(url)
        query = parse_qs(split.query, max_num_fields=50)
        fragment = parse_qs(split.fragment, max_num_fields=50)
    except ValueError:
        raise GatewayError(f"The address in `code` cannot be read. {_MEND}", "invalid_input") from None
    parameters = {**fragment, **query}
    if "error" in parameters:
        # RFC 6749 section 4.1.2.1
        raise GatewayError(
            "The provider ended the login, or consent was refused. Start a new login and approve it.",
            "code_rejected",
        )
    if "code_challenge" in parameters:
        raise GatewayError(
            "That is the address to open, not the page that it leads to. Open it, approve, and paste what "
            "the page shows then.",
            "invalid_input",
        )
    code, _, rest = parameters.get("code", [""])[0].partition("#")
    # Some pages put the state behind the code, as code#state: then it is the URL's fragment.
    bare_fragment = split.fragment if split.fragment and "=" not in split.fragment else ""
    return code, parameters.get("state", [rest or bare_fragment])[0]
