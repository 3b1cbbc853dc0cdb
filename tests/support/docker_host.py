"""A docker host as most people have one: a new Debian with systemd, a docker engine, Compose and buildx.

It is a container of the machine's engine, with an engine inside: names and ports of its own, gone afterwards.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "/root/litellm"
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_RELEASE = "trixie"
_PACKAGES = (
    "ca-certificates,systemd,systemd-sysv,dbus,python3,docker.io,docker-cli,docker-compose,docker-buildx,"
    "iptables,iproute2,curl,jq,hey,openssl,procps"
)
# What systemd wants of a container, and an engine inside it.
_OPTIONS = (
    "--env=container=docker",
    "--cgroupns=private",
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=systempaths=unconfined",
    "--device-cgroup-rule=a *:* rwm",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--tmpfs=/tmp:exec",
    "--stop-signal=SIGRTMIN+3",
    "--volume=/var/lib/docker",
)
_START = (
    "for m in /sys/fs/cgroup /sys/fs/cgroup/*; do mountpoint -q $m && mount -o remount,rw,bind $m; done; "
    "mount -o remount,rw,bind /proc/sys; exec /sbin/init"
)


if TYPE_CHECKING:
    Terminal = pexpect.spawn[str]
else:
    Terminal = pexpect.spawn


@dataclass(frozen=True)
class DockerHost:
    """Commands run as root in the folder of the project, by bash, as a person would type them there."""

    name: str
    environment: tuple[str, ...] = ()

    def run(self, command: str, *, code: int | None = 0, timeout: float = 120) -> str:
        """What it prints to both streams. Fails unless it exits with ``code`` (None: with any)."""
        done = subprocess.run(
            ["docker", "exec", *self._options(), self.name, "bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
        said = done.stdout.decode(errors="replace")
        assert code is None or done.returncode == code, f"{command}\nexit {done.returncode}\n{said}"
        return said

    def terminal(self, command: str) -> Terminal:
        """The command with a terminal, for whoever types into it."""
        arguments = ["exec", "--interactive", "--tty", *self._options(), self.name, "bash", "-c", command]
        return pexpect.spawn("docker", arguments, timeout=60, encoding="utf-8", dimensions=(50, 400))

    def approve(self, url: str) -> str:
        """What a person finds in the browser after consent: the sandbox's page with ``code#state``."""
        page = self.run(f"curl --silent --location '{url}'")
        (shown,) = re.findall(r'id="code"[^>]*>\s*([^<]+?)\s*<', page)
        return html.unescape(str(shown))

    def _options(self) -> list[str]:
        return ["--workdir", FOLDER, *(f"--env={setting}" for setting in self.environment)]


@contextmanager
def docker_host(files: Path) -> Iterator[DockerHost]:
    """A host with a copy of ``files`` as the project's folder, and the base of the images to be built.

    TEST_DOCKER_HOST names one that stays, for whoever works on these tests: images are built once then.
    """
    kept = os.environ.get("TEST_DOCKER_HOST")
    name = kept or f"litellm-oauth-docker-host-{os.getpid()}"
    run = ["docker", "run", "--detach", "--name", name, "--hostname", "dockerhost", *_OPTIONS]
    if not kept or subprocess.run(["docker", "inspect", name], capture_output=True, check=False).returncode:
        subprocess.run([*run, _image(), "sh", "-c", _START], check=True, capture_output=True)
    try:
        host = DockerHost(name)
        subprocess.run(["docker", "exec", name, "mkdir", "-p", FOLDER], check=True)
        if _CA_BUNDLE.exists():
            # Images are built in there, too; some networks' proxies sign with a CA of their own.
            subprocess.run(
                ["docker", "cp", _CA_BUNDLE, f"{name}:{_CA_BUNDLE}"], check=True, capture_output=True
            )
        _pipe(["tar", "-C", str(files), "-c", "."], ["docker", "exec", "-i", name, "tar", "-C", FOLDER, "-x"])
        deadline = time.monotonic() + 60
        while "Server Version" not in host.run("docker info 2>/dev/null", code=None):
            assert time.monotonic() < deadline, host.run("journalctl -u docker | tail -n 20", code=None)
            time.sleep(0.5)
        base = host.run(
            "sed -n 's/.*BASE_IMAGE:-\\([^}]*\\)}.*/\\1/p' docker-compose.yml | head -n 1"
        ).strip()
        if base.startswith("litellm-oauth/"):
            _pipe(["docker", "save", base], ["docker", "exec", "-i", name, "docker", "load", "--quiet"])
        yield host
    finally:
        if not kept:
            subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)


def matched(terminal: Terminal) -> str:
    """The first group of what was expected last."""
    assert isinstance(terminal.match, re.Match)
    return str(terminal.match[1])


def _image() -> str:
    """The host's image, made where it is not there yet; half a minute."""
    digest = hashlib.sha256(f"{_RELEASE} {_PACKAGES}".encode()).hexdigest()[:12]
    image = f"litellm-oauth-tests/docker-host:{digest}"
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
        make = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={_PACKAGES}"]
        make += ["--aptopt=APT::Install-Recommends false", _RELEASE, "-"]
        _pipe(make, ["docker", "import", "-", image])
    return image


def _pipe(producer: list[str], consumer: list[str]) -> None:
    with subprocess.Popen(producer, stdout=subprocess.PIPE) as source:
        subprocess.run(consumer, stdin=source.stdout, check=True, stdout=subprocess.DEVNULL)
    assert source.returncode == 0, producer
