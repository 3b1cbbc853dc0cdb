"""The SQLite file. It holds SHA-256 hashes of codes and tokens, never one that could be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
  name       TEXT PRIMARY KEY,
  person     INTEGER UNIQUE,          -- the N of person-N, where the sandbox chose the name
  created_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS families ( -- one login and all tokens that descend from it
  id              TEXT PRIMARY KEY,
  account         TEXT NOT NULL,
  client_id       TEXT NOT NULL,
  scope           TEXT NOT NULL,
  created_at      REAL NOT NULL,
  revoked_because TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS families_by_account ON families (account);
CREATE TABLE IF NOT EXISTS codes (
  hash         BLOB PRIMARY KEY,
  account      TEXT NOT NULL,
  client_id    TEXT NOT NULL,
  redirect_uri TEXT NOT NULL,
  scope        TEXT NOT NULL,
  state_hash   BLOB,
  challenge    TEXT NOT NULL,
  expires_at   REAL NOT NULL,
  family       TEXT                   -- set once the code was used
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
  hash       BLOB PRIMARY KEY,
  kind       TEXT NOT NULL CHECK (kind IN ('access', 'refresh')),
  family     TEXT NOT NULL REFERENCES families (id) ON DELETE CASCADE,
  scope      TEXT NOT NULL,
  issued_at  REAL NOT NULL,
  expires_at REAL NOT NULL,
  spent      INTEGER NOT NULL DEFAULT 0 -- refresh: rotated away; access: revoked by itself
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tokens_by_family ON tokens (family);
CREATE TABLE IF NOT EXISTS federation_rules (
  id       TEXT PRIMARY KEY,
  document TEXT NOT NULL              -- JSON; public keys only
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS assertions ( -- of workloads, each good once
  issuer     TEXT NOT NULL,
  jti        TEXT NOT NULL,
  expires_at REAL NOT NULL,
  PRIMARY KEY (issuer, jti)
) WITHOUT ROWID;
"""
_DAY = 24 * 3600


def open_database(path: Path | str, now: float) -> sqlite3.Connection:
    """Open or make the file, and forget what has been dead for more than a day.

    A killed process loses nothing that was committed. A power cut may: a stand-in can afford that for speed.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(_SCHEMA)
    with transaction(connection):
        connection.execute("DELETE FROM codes WHERE expires_at < ?", (now - _DAY,))
        connection.execute("DELETE FROM assertions WHERE expires_at < ?", (now - _DAY,))
        connection.execute("DELETE FROM tokens WHERE kind = 'access' AND expires_at < ?", (now - _DAY,))
        connection.execute(
            "DELETE FROM families WHERE NOT EXISTS"
            " (SELECT 1 FROM tokens WHERE family = families.id AND expires_at >= ?)",
            (now - _DAY,),
        )
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, the writing lock taken first."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
