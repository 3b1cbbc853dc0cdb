"""``python -m oauth_sandbox``: check the settings, open the database, listen."""

from __future__ import annotations

import logging
import resource
import socket
import sqlite3
import sys
from dataclasses import replace

import uvicorn
from starlette.types import Scope

from .app import build_app
from .clock import Clock
from .database import open_database
from .settings import Settings, SettingsError, read_settings

_log = logging.getLogger("oauth_sandbox")


def main() -> int:
    """Serve until a signal comes. Returns the exit code: 2 for wrong settings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    # At its lowest level the library logs tokens. It never gets there.
    logging.getLogger("authlib").setLevel(logging.WARNING)
    try:
        settings = read_settings(sys.argv[1:])
        listener = _listen(settings)
        clock = Clock()
        connection = open_database(settings.database, clock.now())
    except SettingsError as error:
        sys.stderr.write(f"The sandbox cannot start:\n{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"The sandbox cannot listen on {settings.host}:{settings.port}: {error}\n")
        return 2
    except sqlite3.Error as error:
        sys.stderr.write(f"The sandbox cannot use its database {settings.database}: {error}\n")
        return 2
    port = listener.getsockname()[1]
    if not settings.redirect_uris:
        settings = replace(settings, redirect_uris=(f"http://localhost:{port}/oauth/code/callback",))
    app = build_app(settings, connection, clock, lambda scope: _drop(server, scope))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,  # its lines would hold codes
            server_header=False,
            timeout_keep_alive=75,  # longer than clients keep a connection that they do not use
            timeout_graceful_shutdown=2,
        )
    )
    _raise_file_limit()
    _log.info("listening on http://%s:%s, keeping logins in %s", settings.host, port, settings.database)
    server.run(sockets=[listener])
    return 0


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family, backlog=4096)
    # Connections inherit it. asyncio leaves it to whoever makes the socket; without it answers wait 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _drop(server: uvicorn.Server, scope: Scope) -> None:
    """End the connection that a request came on. ASGI has no word for it."""
    for connection in server.server_state.connections:
        if getattr(connection, "client", None) == scope["client"]:
            connection.transport.close()


def _raise_file_limit() -> None:
    """A thousand clients at once need as many file descriptors, which is more than the usual soft limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
