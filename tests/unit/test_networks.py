"""The networks of trusted proxies, as an inventory writes them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest

from litellm_oauth.networks import TrustedProxies, faults_of, plain, trusted_proxies


def test_addresses_networks_and_the_docker_host_are_taken() -> None:
    entries = [
        "10.1.2.3",
        "192.168.0.0/16",
        "2001:db8::/32",
        "::1",
        "::ffff:172.16.0.0/108",
        "host",
        "10.1.2.3",
    ]
    assert faults_of(entries) == []
    assert trusted_proxies(entries) == TrustedProxies(
        (
            IPv4Network("10.1.2.3"),
            IPv4Network("192.168.0.0/16"),
            IPv6Network("2001:db8::/32"),
            IPv6Network("::1"),
            IPv4Network("172.16.0.0/12"),
        ),
        host=True,
    )
    assert trusted_proxies([]) == TrustedProxies()


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        (
            ["10.0.0.1/8"],
            "10.0.0.1/8, an address inside of the network 10.0.0.0/8; write 10.0.0.0/8 or 10.0.0.1",
        ),
        (["0.0.0.0/0"], "lets every client name any origin"),
        (["::/0"], "lets every client name any origin"),
        (["::ffff:0:0/96"], "lets every client name any origin"),
        (["::/16"], "lets every client name any origin"),
        (["10.0.0.0/33"], "10.0.0.0/33, which is no network"),
        (["proxy.example.com"], "proxy.example.com, which is no network"),
        (["HOST"], "HOST, which is no network"),
        (["10.0.0.0/255.0.0.255"], "which is no network"),
        (["fe80::1%eth0"], "an entry that is no network"),
        ([""], "an entry that is no network"),
        ([10], "an entry that is no network"),
        ([None, None], "an entry that is no network"),
        ("10.0.0.0/8", "is no list"),
        ({"10.0.0.0/8": 1}, "is no list"),
        (None, "is no list"),
    ],
    ids=str,
)
def test_what_is_no_network_is_refused_with_the_mend(entries: object, fault: str) -> None:
    (said,) = faults_of(entries)
    assert fault in said
    assert "; " in said
    # what is wrong trusts no one
    assert trusted_proxies(entries).networks == ()


@pytest.mark.parametrize(
    ("address", "inside"),
    [("10.255.0.1", True), ("11.0.0.1", False), ("2001:db8::1", True), ("2001:db9::1", False)],
)
def test_an_address_is_in_a_network_of_its_own_kind(address: str, inside: bool) -> None:
    assert trusted_proxies(["10.0.0.0/8", "2001:db8::/32"]).holds(ip_address(address)) is inside


def test_an_ipv4_address_in_ipv6_s_clothes_is_itself() -> None:
    assert plain(ip_address("::ffff:10.0.0.1")) == ip_address("10.0.0.1")
    assert plain(ip_address("fe80::1%eth0")) == ip_address("fe80::1")
    assert plain(ip_address("::1")) == ip_address("::1")
