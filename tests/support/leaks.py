"""Finds secrets in what left a gateway, also those of which only the hash is known."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable
from dataclasses import dataclass

# What tokens, codes and verifiers are made of; shorter ones nobody makes.
_RUN = re.compile(r"[A-Za-z0-9._~-]{32,}")
_CHALLENGE = re.compile(r"code_challenge=([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What no answer may hold: texts, and SHA-256 digests of texts that have one of ``lengths``."""

    texts: frozenset[str]
    digests: frozenset[bytes] = frozenset()
    lengths: frozenset[int] = frozenset()

    def found_in(self, answer: str) -> list[str]:
        """The secrets in ``answer``."""
        runs: set[str] = set(_RUN.findall(answer))
        windows = (
            run[start : start + length]
            for run in runs
            for length in self.lengths
            for start in range(len(run) - length + 1)
        )
        hashed = [text for text in windows if hashlib.sha256(text.encode()).digest() in self.digests]
        return hashed + [text for text in self.texts if text in answer]


def verifier_digests(answers: Iterable[str]) -> frozenset[bytes]:
    """The SHA-256 of every verifier whose challenge (RFC 7636 §4.2) stands in an authorization URL."""
    challenges = {found for answer in answers for found in _CHALLENGE.findall(answer)}
    return frozenset(urlsafe_b64decode(challenge + "=") for challenge in challenges)
