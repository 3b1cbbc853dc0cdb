"""The networks of ``trusted_proxies``: whose X-Forwarded-For counts.

Standard library only, and no import of this package: the check of the Ansible variables loads this file too.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

# A proxy on the machine that runs the containers, however its address looks from inside.
HOST = "host"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_SHAPE = "write an address, a network such as 10.0.0.0/8, or host for a proxy on the docker host"


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """``host``: whether a proxy on the docker host itself is one of them."""

    networks: tuple[Network, ...] = ()
    host: bool = False

    def holds(self, address: Address) -> bool:
        """Whether the address belongs to one of the networks."""
        return any(address in network for network in self.networks)


def trusted_proxies(entries: object) -> TrustedProxies:
    """The entries that are right. ``faults_of`` says what is wrong with the others."""
    found = [] if not isinstance(entries, list | tuple) else [_network(e) for e in entries if e != HOST]
    return TrustedProxies(
        tuple(dict.fromkeys(network for network in found if not isinstance(network, str))),
        isinstance(entries, list | tuple) and HOST in entries,
    )


def faults_of(entries: object) -> list[str]:
    """What is wrong with the entries of ``trusted_proxies``, each with its mend."""
    if not isinstance(entries, list | tuple):
        return ["is no list; write [10.0.0.0/8, host]"]
    found = [fault for e in entries if e != HOST and isinstance(fault := _network(e), str)]
    return list(dict.fromkeys(found))


def plain(address: Address) -> Address:
    """An IPv4 address that is written as IPv6 as IPv4, and no zone."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is not None:
            return ipaddress.IPv6Address(int(address))
    return address


def _network(entry: object) -> Network | str:
    """The network, or what is wrong with the entry."""
    if not isinstance(entry, str) or not entry or "%" in entry:
        return f"holds an entry that is no network; {_SHAPE}"
    try:
        interface = ipaddress.ip_interface(entry)
    except ValueError:
        return f"holds {entry[:60]}, which is no network; {_SHAPE}"
    network: Network = interface.network
    if network.network_address != interface.ip:
        return f"holds {entry}, an address inside of the network {network}; write {network} or {interface.ip}"
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = int(network.network_address) & 0xFFFFFFFF
        network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    if network.prefixlen == 0 or (isinstance(network, ipaddress.IPv6Network) and _MAPPED.subnet_of(network)):
        return f"holds {entry}, which lets every client name any origin; write the networks of your proxies"
    return network
