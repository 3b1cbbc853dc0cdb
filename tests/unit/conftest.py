"""Fixtures of the unit tests: real databases."""

from __future__ import annotations

from support.postgres import database, empty_database, migrated_template, postgres_server

__all__ = ["database", "empty_database", "migrated_template", "postgres_server"]
