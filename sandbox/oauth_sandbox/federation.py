"""Workload identity federation: which workloads may have tokens, as an administrator has registered it.

A rule trusts one issuer's signature for one subject, and leads to one service account (RFC 7521 §3).
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

from .accounts import Account


@dataclass(frozen=True, slots=True)
class Rule:
    """``jwks`` holds the issuer's public keys (RFC 7517 §5). Tokens live ``token_seconds`` and are
    ``account``'s. A request names one of ``workspaces``, or none where there is one only.
    """

    federation_rule_id: str
    organization_id: str
    service_account_id: str
    issuer_url: str
    subject: str
    audience: str
    jwks: dict[str, Any]
    account: str
    workspaces: tuple[str, ...]
    token_seconds: float

    @property
    def owner(self) -> Account:
        return Account(self.account)

    def described(self) -> dict[str, object]:
        return asdict(self)


class RuleBook:
    """The rules, and which assertions were used already."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def register(self, rule: Rule) -> None:
        """A rule of the same id is replaced."""
        self._connection.execute(
            "INSERT OR REPLACE INTO federation_rules VALUES (?, ?)",
            (rule.federation_rule_id, json.dumps(rule.described())),
        )

    def find(self, federation_rule_id: str) -> Rule | None:
        row = self._connection.execute(
            "SELECT document FROM federation_rules WHERE id = ?", (federation_rule_id,)
        ).fetchone()
        return None if row is None else _rule(row[0])

    def rules(self) -> list[Rule]:
        rows = self._connection.execute("SELECT document FROM federation_rules ORDER BY id")
        return [_rule(document) for (document,) in rows.fetchall()]

    def forget(self) -> None:
        """No rule is left. Assertions that were used stay used."""
        self._connection.execute("DELETE FROM federation_rules")

    def use_up(self, issuer: str, jti: str, expires_at: float) -> bool:
        """Whether this assertion comes for the first time (RFC 7523 §3, item 7)."""
        return (
            self._connection.execute(
                "INSERT OR IGNORE INTO assertions VALUES (?, ?, ?)", (issuer, jti, expires_at)
            ).rowcount
            > 0
        )


def _rule(document: str) -> Rule:
    members = json.loads(document)
    return Rule(**{**members, "workspaces": tuple(members["workspaces"])})
