"""The fixtures of the tests that run services in their own process, to be imported by their ``conftest``."""

from __future__ import annotations

from .postgres import database, empty_database, external_database, migrated_template, postgres_server
from .redis import redis_process, redis_server
from .sandbox import own_sandbox, sandbox, sandbox_process
from .service import gateways

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
