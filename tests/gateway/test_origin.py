"""Where a request comes from: what trusted proxies say of it, and nothing that a client can make up."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from litellm_oauth.gateway import origin
from litellm_oauth.gateway.origin import client_origin, host_addresses
from litellm_oauth.networks import TrustedProxies, trusted_proxies

BRIDGE = "172.18.0.1"
HOST = frozenset(("127.0.0.1", "::1", BRIDGE, "fd00::1"))
NONE = TrustedProxies()
PROXIES = trusted_proxies(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7"])
ON_HOST = trusted_proxies(["host"])
BOTH = trusted_proxies(["10.0.0.0/8", "host"])


def of(peer: str | None, trusted: TrustedProxies, *lines: str) -> str:
    return client_origin(peer, lines, trusted, HOST)


@pytest.mark.parametrize(
    ("peer", "written"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::1"),
        (BRIDGE, "host"),
        (f"::ffff:{BRIDGE}", "host"),
        ("FD00::1", "host"),
        ("127.0.0.1", "host"),
        ("127.9.9.9", "host"),
        ("::1", "host"),
        (None, "unknown"),
        ("", "unknown"),
        ("testclient", "unknown"),
        ("/run/gateway.sock", "unknown"),
    ],
)
def test_without_trusted_proxies_the_peer_is_the_origin_whatever_is_claimed(
    peer: str | None, written: str
) -> None:
    assert of(peer, NONE) == written
    assert of(peer, NONE, "198.51.100.1") == written
    assert of(peer, NONE, "127.0.0.1, 10.0.0.1", "host") == written


@pytest.mark.parametrize(
    ("lines", "written"),
    [
        (["198.51.100.1"], "198.51.100.1"),
        # what the client made up stands to the left
        (["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (["127.0.0.1, 198.51.100.1"], "198.51.100.1"),
        (["host, 198.51.100.1"], "198.51.100.1"),
        ([f"{BRIDGE}, 198.51.100.1"], "198.51.100.1"),
        # a second proxy, and a third
        (["1.1.1.1, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1", "192.0.2.7, 10.9.9.9"], "198.51.100.1"),
        (["1.1.1.1", "198.51.100.1", "2001:db8:1::5"], "198.51.100.1"),
        # proxies only: the one farthest away
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([" , ,"], "10.0.0.1"),
        (["198.51.100.1,,"], "198.51.100.1"),
        (["198.51.100.1 ,\t10.9.9.9\t"], "198.51.100.1"),
        # ports and brackets
        (["198.51.100.1:5"], "198.51.100.1"),
        (["198.51.100.1:65535"], "198.51.100.1"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["2001:0DB8:0:0:0:0:0:1"], "2001:db8::1"),
        (["[::ffff:198.51.100.1]:443"], "198.51.100.1"),
        (["::ffff:198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, ::ffff:10.9.9.9"], "198.51.100.1"),
        (["198.51.100.1, [2001:db8:1::5]:8443, 10.9.9.9:1"], "198.51.100.1"),
        (["fe80::1%eth0"], "fe80::1"),
    ],
    ids=str,
)
def test_the_first_address_from_the_right_that_is_no_proxy_is_the_origin(
    lines: list[str], written: str
) -> None:
    assert of("10.0.0.1", PROXIES, *lines) == written
    assert of("::ffff:10.0.0.1", PROXIES, *lines) == written


@pytest.mark.parametrize(
    "entry",
    [
        *("unknown", "_hidden", "host", "localhost", "proxy.example.com", "-", "*"),
        *(
            "198.51.100.1:",
            "198.51.100.1:x",
            "198.51.100.1:65536",
            "198.51.100.1:-1",
            "198.51.100.1:99999999999",
        ),
        *(
            "198.51.100.1:٤٤٣",
            "198.51.100.1:1:2",
            "198.51.100",
            "198.51.100.256",
            "0198.51.100.1",
            "3325256705",
        ),
        *(
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]443",
            "[2001:db8::1]:x",
            "[198.51.100.1]:5",
            "[]",
            "[]:1",
        ),
        *('"[2001:db8::1]:443"', "for=198.51.100.1", "198.51.100.1/32", "198.51.100.1;198.51.100.2"),
        *("198.51.100.1 198.51.100.2", "\x00", "198.51.100.1\x00", "\uff12.2.2.2", "1" * 10_000),
    ],
    ids=ascii,
)
def test_an_entry_that_is_no_address_ends_the_walk_at_the_last_good_one(entry: str) -> None:
    assert of("10.0.0.1", PROXIES, entry) == "10.0.0.1"
    assert of("10.0.0.1", PROXIES, f"198.51.100.1, {entry}") == "10.0.0.1"
    assert of("10.0.0.1", PROXIES, f"198.51.100.1, {entry}, 10.9.9.9") == "10.9.9.9"
    assert of("10.0.0.1", PROXIES, f"{entry}, 198.51.100.1, 10.9.9.9") == "198.51.100.1"


def test_a_proxy_on_the_docker_host_is_trusted_by_its_word() -> None:
    for peer in (BRIDGE, "127.0.0.1", "::1", "fd00::1"):
        assert of(peer, ON_HOST, "198.51.100.1") == "198.51.100.1"
        assert of(peer, PROXIES, "198.51.100.1") == "host"
    # the word is about the host alone
    assert of("10.0.0.1", ON_HOST, "198.51.100.1") == "10.0.0.1"
    # two proxies on the host, and a client there
    assert of(BRIDGE, ON_HOST, "198.51.100.1, 127.0.0.1") == "198.51.100.1"
    assert of(BRIDGE, ON_HOST, "127.0.0.1") == "host"
    assert of(BRIDGE, ON_HOST) == "host"


def test_a_proxy_in_a_container_names_the_host_by_the_bridge_s_address() -> None:
    assert of("10.0.0.1", PROXIES, BRIDGE) == "host"
    assert of("10.0.0.1", BOTH, f"198.51.100.1, {BRIDGE}") == "198.51.100.1"
    assert of("10.0.0.1", PROXIES, f"198.51.100.1, {BRIDGE}") == "host"


def test_a_loopback_address_that_another_machine_reports_is_that_machine_s() -> None:
    assert of("10.0.0.1", BOTH, "127.0.0.1") == "10.0.0.1"
    assert of("10.0.0.1", BOTH, "198.51.100.1, ::1, 10.9.9.9") == "10.9.9.9"
    assert of(BRIDGE, BOTH, "127.0.0.1, 10.9.9.9") == "10.9.9.9"


def test_a_long_header_is_walked_to_its_end() -> None:
    assert of("10.0.0.1", PROXIES, "198.51.100.1" + ", 10.9.9.9" * 50_000) == "198.51.100.1"


ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    "eth1\t0000640A\t0100640A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"
    "tun1\t00000000\t0100640A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
    "eth2\t00000000\n"
    "eth3\tzz\tzz\tzz\tzz\tzz\tzz\tzz\tzz\tzz\tzz\n"
)
ROUTES_IPV6 = (
    f"{'0' * 32} 00 {'0' * 32} 00 fd00{'0' * 27}1 00000400 00000001 00000000 00000003     eth0\n"
    f"fd00{'0' * 28} 40 {'0' * 32} 00 {'0' * 32} 00000100 00000001 00000000 00000001     eth0\n"
    f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200       lo\n"
    f"{'0' * 32} 03 {'0' * 32} 00 fd01{'0' * 27}1 00000400 00000001 00000000 00000003     eth0\n"
    "garbage\n"
)


def test_the_host_has_the_addresses_of_the_default_gateways_and_loopback() -> None:
    assert host_addresses(ROUTES, ROUTES_IPV6) == {"127.0.0.1", "::1", BRIDGE, "fd00::1"}


def test_a_machine_without_a_default_route_has_loopback_alone() -> None:
    assert host_addresses("", "") == {"127.0.0.1", "::1"}


def test_the_routes_of_this_machine_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert all(ipaddress.ip_address(address) for address in host_addresses())
    (tmp_path / "route").write_text(ROUTES)
    monkeypatch.setattr(origin, "_ROUTES", tmp_path / "route")
    # a kernel without IPv6 has no such file
    monkeypatch.setattr(origin, "_ROUTES_IPV6", tmp_path / "ipv6_route")
    assert host_addresses() == {"127.0.0.1", "::1", BRIDGE}
