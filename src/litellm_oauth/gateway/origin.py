"""Where a request comes from, for the audit: its client's address, or ``host`` for one on the docker host.

Behind proxies the address is in X-Forwarded-For, to which each proxy appends the address that it was called
from. A client can begin that header with anything, so only what trusted proxies appended counts.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..networks import HOST, Address, TrustedProxies, plain

# A peer without an address, such as one at the other end of a Unix socket.
UNKNOWN = "unknown"

_ROUTES = Path("/proc/net/route")
_ROUTES_IPV6 = Path("/proc/net/ipv6_route")
_LOOPBACK = frozenset(("127.0.0.1", "::1"))
# RTF_GATEWAY in Linux' route.h: the route leads through another machine.
_GATEWAY = 0x2


def client_origin(
    peer: str | None,
    forwarded_for: Sequence[str],
    trusted: TrustedProxies,
    host_addresses: frozenset[str],
) -> str:
    """The address of the client that sent a request, ``host``, or ``unknown``.

    ``peer`` is the address that the connection comes from, ``forwarded_for`` the request's X-Forwarded-For
    lines in their order. They are walked from right to left as long as the address so far is of a trusted
    proxy; an entry that is no address ends the walk.
    """
    origin = _address(peer or "")
    if origin is None:
        return UNKNOWN
    for entry in _from_the_right(forwarded_for):
        at_host = _is_host(origin, host_addresses)
        if not (trusted.holds(origin) or (trusted.host and at_host)):
            break
        hop = _address(entry)
        # A proxy elsewhere names a client on its own machine so: that machine is as near as one gets.
        if hop is None or (hop.is_loopback and not at_host):
            break
        origin = hop
    return HOST if _is_host(origin, host_addresses) else str(origin)


def host_addresses(routes: str | None = None, routes_ipv6: str | None = None) -> frozenset[str]:
    """The addresses that a client on the docker host seems to have: the default gateways, and loopback.

    ``routes`` and ``routes_ipv6`` are the contents of /proc/net/route and /proc/net/ipv6_route, which are
    read if they are not given.
    """
    gateways = _gateways(_read(_ROUTES) if routes is None else routes)
    gateways_ipv6 = _gateways_ipv6(_read(_ROUTES_IPV6) if routes_ipv6 is None else routes_ipv6)
    return _LOOPBACK.union(gateways, gateways_ipv6)


def _is_host(address: Address, addresses: frozenset[str]) -> bool:
    return address.is_loopback or str(address) in addresses


def _from_the_right(lines: Sequence[str]) -> Iterator[str]:
    entries = [entry.strip() for line in lines for entry in line.split(",")]
    return (entry for entry in reversed(entries) if entry)


def _address(text: str) -> Address | None:
    """The address in ``1.2.3.4``, ``1.2.3.4:5``, ``2001:db8::1``, ``[2001:db8::1]``, ``[2001:db8::1]:5``."""
    text = text.strip()
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in host or (port and not port.startswith(":")):
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        port = f":{port}"
    if port and not (port[1:].isascii() and port[1:].isdigit() and int(port[1:][:6]) < 65536):
        return None
    try:
        return plain(ipaddress.ip_address(host))
    except ValueError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _gateways(routes: str) -> Iterator[str]:
    """From lines of interface, destination, gateway, flags, …, mask, …, each address last byte first."""
    for line in routes.splitlines():
        fields = line.split()
        # the headline, and lines cut short, have no numbers there
        with contextlib.suppress(IndexError, ValueError):
            destination, gateway, flags, mask = (int(fields[n], 16) for n in (1, 2, 3, 7))
            if destination == mask == 0 and gateway and flags & _GATEWAY:
                yield str(ipaddress.IPv4Address(gateway.to_bytes(4, "little")))


def _gateways_ipv6(routes: str) -> Iterator[str]:
    """From lines of destination, its prefix, source, its prefix, next hop, metric, …, flags, interface."""
    for line in routes.splitlines():
        fields = line.split()
        with contextlib.suppress(IndexError, ValueError):
            destination, prefix, gateway, flags = (int(fields[n], 16) for n in (0, 1, 4, 8))
            if destination == prefix == 0 and gateway and flags & _GATEWAY:
                yield str(plain(ipaddress.IPv6Address(gateway)))
