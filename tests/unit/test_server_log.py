"""What PostgreSQL writes into its own log, with the settings that the role postgres gives it."""

from __future__ import annotations

from pathlib import Path

import yaml
from psycopg import sql
from psycopg.errors import Diagnostic

from support.postgres import PostgresServer

_DEFAULTS = Path(__file__).resolve().parents[2] / "roles/postgres/defaults/main.yml"


def test_a_slow_statement_is_logged_without_its_values(postgres_server: PostgresServer) -> None:
    settings = yaml.safe_load(_DEFAULTS.read_text())["postgres_settings"]
    logged: list[str] = []

    def hear(line: Diagnostic) -> None:
        logged.append(f"{line.message_primary} {line.message_detail}")

    # as if every statement were slow; the log's lines are sent to the client as well
    changes = {"log_min_duration_statement": "0", "client_min_messages": "log"}
    with postgres_server.admin() as connection:
        connection.add_notice_handler(hear)
        for name, value in {**settings, **changes}.items():
            if name.startswith(("log_", "client_")):
                connection.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        connection.execute("SELECT %(token)s::text", {"token": "a-sealed-token"})
    assert any("SELECT $1::text" in line for line in logged)
    assert not any("a-sealed-token" in line for line in logged)
