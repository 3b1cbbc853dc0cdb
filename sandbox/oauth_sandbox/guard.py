"""Refuses requests that another web page had a browser send.

A browser sends the name in its address bar as Host, also if that name now resolves to this machine (DNS
rebinding), and the page's own address as Origin.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.requests import Request

# What the kit's own networks and a person on this machine call the sandbox.
_NAMES = ("localhost", "sandbox")
_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Guard:
    """Knows the names of the sandbox: loopback addresses, ``localhost``, ``sandbox`` and those of ``names``.

    0.0.0.0 and :: among them stand for every interface and are no name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {_canonical(name) for name in (*_NAMES, *names)} - {"0.0.0.0", "::"}  # noqa: S104 -- taken out

    def refuse_host(self, request: Request) -> str | None:
        """Why the Host header is refused; None if it is one of the sandbox's names, with any port."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1:
            return "Send one Host header."
        found = _HOST.fullmatch(hosts[0])
        if found is None or not self._is_own(found["name"].strip("[]")):
            return (
                "The sandbox is not known by this name. Use localhost, or list the name in SANDBOX_NAMES "
                "(sandbox_names)."
            )
        return None

    def refuse_page(self, request: Request) -> str | None:
        """Why a request to the control routes is refused: a foreign Host or another page; None if fine."""
        if reason := self.refuse_host(request):
            return reason
        origins = request.headers.getlist("origin")
        host = request.headers["host"].lower()
        if any(origin.lower() not in (f"http://{host}", f"https://{host}") for origin in origins):
            return "Other web pages cannot use the control routes."
        if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
            return "Other web pages cannot use the control routes."
        return None

    def _is_own(self, name: str) -> bool:
        if _canonical(name) in self._names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def is_name(text: str) -> bool:
    """Whether it is a host name or an address as it stands in a Host header, without port and brackets."""
    if re.fullmatch(r"[A-Za-z0-9._-]{1,253}", text):
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _canonical(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()
