"""Fixtures of the unit tests: real databases, and the sandbox provider as a real process."""

from __future__ import annotations

from support.postgres import (
    database,
    empty_database,
    external_database,
    migrated_template,
    postgres_server,
)
from support.redis import redis_process, redis_server
from support.sandbox import own_sandbox, sandbox, sandbox_process
from support.service import gateways

__all__ = [
    "database",
    "empty_database",
    "external_database",
    "gateways",
    "migrated_template",
    "own_sandbox",
    "postgres_server",
    "redis_process",
    "redis_server",
    "sandbox",
    "sandbox_process",
]
