"""Which addresses are a cloud's metadata service, and that nothing connects to one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from litellm_oauth.gateway.cloud_metadata import is_metadata


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "[fe80::1%eth0]",
        "fd00:ec2::254",
        "[fd00:0ec2:0:0:0:0:0:254]",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "168.63.129.16",
        "100.100.100.200",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "0xa9.254.43518",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "metadata",
    ],
)
def test_a_metadata_service_is_known_in_all_its_forms(host: str) -> None:
    assert is_metadata(host)


@pytest.mark.parametrize(
    "host",
    ["", "127.0.0.1", "::1", "169.253.1.1", "10.0.0.1", "api.example", "metadata.example", "fd00::254"],
)
def test_no_other_host_is(host: str) -> None:
    assert not is_metadata(host)


def test_no_socket_connects_to_one() -> None:
    """In a process of its own, because an audit hook stays."""
    code = (
        "import socket, urllib.request\n"
        "from litellm_oauth.gateway.cloud_metadata import refuse_cloud_metadata\n"
        "refuse_cloud_metadata()\n"
        "def tried(call):\n"
        "    try: call()\n"
        "    except OSError as error: return str(error)\n"
        "print(tried(lambda: socket.create_connection(('169.254.169.254', 80), 2)))\n"
        "print(tried(lambda: urllib.request.urlopen('http://2852039166/latest', timeout=2)))\n"
        "print(tried(lambda: socket.socket().connect_ex(('169.254.169.254', 80))))\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    print(tried(lambda: socket.create_connection(server.getsockname(), 2).close()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    *refused, allowed = shown.splitlines()
    assert len(refused) == 3
    assert all("does not ask a cloud's metadata service" in line for line in refused)
    assert allowed == "None"
