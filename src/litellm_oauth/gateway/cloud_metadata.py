"""Keeps this process away from the metadata service of the cloud that it may run in.

Libraries of clouds ask that service for credentials of the machine by themselves, and LiteLLM has many of
these libraries. Somebody who finds a way to have the gateway call an address of their choice would get the
machine's identity.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from functools import lru_cache
from typing import Any

# Link-local, where nearly all clouds have it (169.254.169.254, and 169.254.170.2 for containers).
_NETWORKS = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))
# Others: AWS and Google over IPv6, Azure, Alibaba, Oracle.
_ADDRESSES = frozenset(
    ipaddress.ip_address(address)
    for address in ("fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192")
)
_NAMES = frozenset(("metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"))
_REFUSED = "the gateway does not ask a cloud's metadata service (claude_oauth.cloud_metadata is false)"


class MetadataRefusedError(ConnectionRefusedError):
    """A connection to a metadata service was about to be made."""

    def __init__(self) -> None:
        super().__init__(_REFUSED)


def refuse_cloud_metadata() -> None:
    """Have every later connection of this process to such an address fail. There is no way back."""
    sys.addaudithook(_look)


@lru_cache(maxsize=1000)
def is_metadata(host: str) -> bool:
    """Whether a host is known for a metadata service, by its name or its address in any of its forms."""
    name = host.strip("[]").rstrip(".").lower()
    if name in _NAMES:
        return True
    address = _address(name.partition("%")[0])
    if address is None:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address in _ADDRESSES or any(
        address.version == network.version and address in network for network in _NETWORKS
    )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in a text, as an operating system reads it: also 2852039166 and 0xa9.254.43518."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(text))
        except (OSError, ValueError):
            return None


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and isinstance(address[0], str) and is_metadata(address[0]):
        raise MetadataRefusedError
