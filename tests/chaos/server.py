"""A PostgreSQL of one test module alone, to be stopped, killed, frozen, made read-only and filled up.

It is a container of the kit's own image whose data lie on a small disk in memory.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from support.postgres import PostgresServer

_UID = 999  # the image's account
_START_SECONDS = 30.0
_OPTIONS = ("fsync=off", "min_wal_size=32MB", "max_wal_size=32MB", "listen_addresses=127.0.0.1")


class OwnServer:
    """One server. Make one with ``own_server``; ``postgres`` is how the other fixtures know it."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self._name = name
        self._folder = folder
        self._data = folder / "data"
        self._port = port
        self._password = secrets.token_hex(16)
        dsn = f"postgresql://postgres:{self._password}@127.0.0.1:{port}/postgres"
        self.postgres = PostgresServer(dsn, None, None)

    def create(self) -> None:
        password = self._folder / "password"
        password.write_text(self._password)
        for path, mode in ((self._folder, 0o755), (password, 0o644)):
            # The container's account has to come through.
            path.chmod(mode)
        self._data.mkdir()
        mine = f"size=160m,uid={_UID},gid={_UID},mode=0700"
        _run("mount", "-t", "tmpfs", "-o", mine, "none", str(self._data))
        options = [argument for option in (*_OPTIONS, f"port={self._port}") for argument in ("-c", option)]
        _run(
            *("docker", "run", "--detach", "--name", self._name, "--network", "host"),
            *("--env", "POSTGRES_PASSWORD_FILE=/run/password", "--volume", f"{password}:/run/password:ro"),
            *("--volume", f"{self._data}:/var/lib/postgresql/data", _image(), "postgres", *options),
        )
        self.start()

    def start(self) -> None:
        """Return when it answers. One whose disk was full may be on its way down, to be started again."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            _run("docker", "start", self._name)
            try:
                self.postgres.admin().close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, self.log
                time.sleep(0.05)
            else:
                return

    @property
    def log(self) -> str:
        command = ("docker", "logs", self._name)
        return subprocess.run(command, check=False, capture_output=True, text=True).stderr

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Orderly, as for a restart; whoever is connected is thrown out."""
        _run("docker", "stop", self._name)
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """As by the kernel that has no memory left; it recovers from its log."""
        _run("docker", "kill", self._name)
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections stay and are made again, and nobody ever answers."""
        _run("docker", "pause", self._name)
        try:
            yield
        finally:
            _run("docker", "unpause", self._name)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """It answers and takes nothing, as a standby does."""
        self._set("default_transaction_read_only = on")
        try:
            yield
        finally:
            self._set("default_transaction_read_only = off")

    @contextmanager
    def full(self) -> Iterator[None]:
        """Its disk is full to the last byte, its log too. It ends over that, and starts again, and ends."""
        filler, over = self._data / "filler", threading.Event()

        def fill() -> None:
            while not over.wait(0.01):
                with suppress(OSError), filler.open("ab", buffering=0) as file:
                    while True:
                        file.write(b"x" * 65_536)
                with suppress(psycopg.Error), self.postgres.admin() as admin:
                    while True:
                        admin.execute("SELECT pg_logical_emit_message(false, 'chaos', repeat('x', 100000))")

        filling = threading.Thread(target=fill)
        filling.start()
        try:
            yield
        finally:
            over.set()
            filling.join()
            filler.unlink()
            self.start()

    def _set(self, setting: str) -> None:
        with self.postgres.admin() as admin:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(f"ALTER SYSTEM SET {setting}".encode())
            admin.execute("SELECT pg_reload_conf()")

    def remove(self) -> None:
        for command in (
            ("docker", "rm", "--force", "--volumes", self._name),
            ("umount", "--lazy", str(self._data)),
        ):
            subprocess.run(command, check=False, capture_output=True)


@contextmanager
def own_server() -> Iterator[OwnServer]:
    """A server that is gone, with all that it held, when the block ends."""
    name = f"litellm-oauth-chaos-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        server = OwnServer(name, Path(folder), _free_port())
        try:
            server.create()
            yield server
        finally:
            server.remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _image() -> str:
    found = _run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "litellm-oauth/postgres")
    assert found, "the image of PostgreSQL is not there; build it with: make images"
    return found.split()[0]


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
