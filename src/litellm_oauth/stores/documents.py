"""The token documents of one host: how a row reads as a JSON file, and where it lies.

``claude_tokens.json`` is ``default``'s and ``users/<hash>.json`` everybody else's. The names that people know
(``accessToken``, ``refreshToken``, ``expiresAt`` in seconds, or milliseconds above 10^11) are kept, and a
file from elsewhere that has only them is read. Beside each document, in the journal's folder that nobody
empties, lies its generation: the document may be put back or removed by hand, the generation never goes back.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from ..disk import make_private, read_private, write_private
from ..errors import StorageUnavailable
from ..tokens import moment_of
from .rows import ProviderState, RowStatus, TokenRow

DEFAULT_USER = "default"
SOURCE = "file"
_SEALED = ("v1.", "gAAAAA")

Document = dict[str, Any]
# (user, field, value) -> the value, sealed
Seal = Callable[[str, str, str], str]


class DamagedDocument(ValueError):  # noqa: N818 -- says what is wrong with it
    """A document that is no JSON object with a usable token; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The highest generation that was written, and whether it was a logout."""

    generation: int = 0
    logged_out: bool = False


class Documents:
    """Reads and writes documents. All calls block; the caller holds the user's lock where it writes."""

    def __init__(self, token_file: Path, state: Path, seal: Seal, *, authority: bool) -> None:
        """``authority``: the documents decide, so what a person does to one by hand counts."""
        self._token_file = token_file
        self._users = _users_folder(token_file)
        self._floors = state / "generations"
        self._seal = seal
        self.authority = authority
        # A document's name says nothing of its user, and its content never changes its user.
        self._names: dict[str, str] = {}

    def prepare(self) -> None:
        """Make the folders. Raises OSError."""
        for folder in (self._token_file.parent, self._users, self._floors):
            make_private(folder)

    def users(self) -> Iterator[str]:
        """Everybody who has a document that can be read, in no order."""
        if self._token_file.exists():
            yield DEFAULT_USER
        for path in self._users.glob("*.json"):
            name = self._names.get(path.name)
            if name is None:
                with suppress(OSError, DamagedDocument):
                    document = _parse(path, read_private(path))
                    name = document.get("userId") if document is not None else None
                if not isinstance(name, str) or self.path(name) != path:
                    continue
                self._names[path.name] = name
            yield name

    def path(self, user: str) -> Path:
        """Where the user's document lies."""
        return document_path(self._token_file, user)

    def read(self, user: str) -> Document | None:
        """The document with its generation, None where nothing is known of the user.

        Raises OSError (UnfitFile for what must not be used) and DamagedDocument.
        """
        path = self.path(user)
        floor = self.floor(user)
        document = _parse(path, read_private(path))
        if document is None:
            return self._missing(floor)
        if document.get("userId", user) != user:
            raise DamagedDocument(f"{path} belongs to another user; put it back under its own name")
        generation = document.get("generation")
        if not isinstance(generation, int) or isinstance(generation, bool) or generation < 1:
            # From elsewhere: the newest there is where a person put it over ours, else the first.
            document["generation"] = floor.generation + 1 if self.authority else 1
            if floor.generation and not self.authority:
                return None
        elif generation < floor.generation:
            if not self.authority:
                return None
            document["generation"] = floor.generation + 1
        self._seal_plain(user, document)
        return document

    def write(self, user: str, document: Document, *, durable: bool) -> None:
        """The document first: a crash before its generation is noted costs nothing. Raises OSError."""
        path = self.path(user)
        logged_out = document.get("status") == RowStatus.LOGGED_OUT
        if logged_out:
            path.unlink(missing_ok=True)
        else:
            content = json.dumps({**document, "userId": user}, indent=2, ensure_ascii=False)
            # People are told to empty the folder.
            make_private(path.parent)
            write_private(path, content.encode("utf-8", "surrogatepass") + b"\n", durable=durable)
        floor = {"generation": document["generation"], "loggedOut": logged_out}
        write_private(self._floors / _hashed(user), json.dumps(floor).encode(), durable=durable)

    @contextmanager
    def all_or_none(self, *users: str) -> Iterator[None]:
        """Put these users' documents back to what they were if the block fails. Raises OSError.

        In the order given: on a full disk, first what was not there before.
        """
        paths = [path for user in users for path in (self.path(user), self._floors / _hashed(user))]
        before = {path: read_private(path) for path in paths}
        try:
            yield
        except BaseException:
            for path, content in before.items():
                _put_back(path, content)
            raise

    def set_aside(self, user: str) -> None:
        """Move a damaged document away, so that a login can replace it and nothing is lost."""
        path = self.path(user)
        path.rename(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))

    def floor(self, user: str) -> Floor:
        """What is noted of the user's generation."""
        content = read_private(self._floors / _hashed(user))
        if content is None:
            return Floor()
        try:
            noted = json.loads(content)
            return Floor(int(noted["generation"]), bool(noted["loggedOut"]))
        except (ValueError, KeyError, TypeError):
            return Floor()

    def _missing(self, floor: Floor) -> Document | None:
        if floor.logged_out:
            return {"status": RowStatus.LOGGED_OUT.value, "generation": floor.generation}
        if floor.generation and self.authority:
            # Somebody removed it, which is how the documents tell people to clear their tokens.
            return {"status": RowStatus.LOGGED_OUT.value, "generation": floor.generation + 1}
        return None

    def _seal_plain(self, user: str, document: Document) -> None:
        for key, field in (("accessToken", "access_token"), ("refreshToken", "refresh_token")):
            value = document.get(key)
            if isinstance(value, str) and value and not value.startswith(_SEALED):
                document[key] = self._seal(user, field, value)


def document_of(row: TokenRow, before: Document | None = None) -> Document:
    """A row as a document; what ``before`` has beside is kept."""
    return {
        **(before or {}),
        "accessToken": row.access_token,
        "refreshToken": row.refresh_token,
        "expiresAt": row.expires_at,
        "refreshExpiresAt": row.refresh_expires_at,
        "scopes": list(row.scopes),
        "account": row.account,
        "clientId": row.client_id,
        "generation": row.generation,
        "status": row.status.value,
        "lastError": row.last_error,
        "nextAttemptAt": row.next_attempt_at,
        "refreshCount": row.refresh_count,
        "loggedInAt": row.logged_in_at,
        "updatedAt": row.updated_at,
    }


def row_of(user: str, document: Mapping[str, Any], now: float, provider: ProviderState) -> TokenRow:
    """A document as a row; whatever has a wrong type counts as not there."""
    status = _one_of(RowStatus, document.get("status")) or RowStatus.ACTIVE
    access_token = _text(document.get("accessToken"))
    if access_token is None:
        status = RowStatus.LOGGED_OUT
    account = document.get("account")
    scopes = document.get("scopes")
    attempt_id = _uuid(document.get("attemptId"))
    forced = document.get("forcedCount") if document.get("forcedOn") == today(now) else 0
    return TokenRow(
        user_id=user,
        access_token=access_token,
        refresh_token=_text(document.get("refreshToken")),
        expires_at=(moment_of(document.get("expiresAt")) or 0.0) if access_token is not None else None,
        refresh_expires_at=moment_of(document.get("refreshExpiresAt")),
        scopes=tuple(word for word in scopes if isinstance(word, str)) if isinstance(scopes, list) else (),
        account=account if isinstance(account, dict) else None,
        generation=document["generation"],
        status=status,
        last_error=_text(document.get("lastError")),
        next_attempt_at=moment_of(document.get("nextAttemptAt")),
        attempt_id=attempt_id,
        attempt_host=_text(document.get("attemptHost")) if attempt_id is not None else None,
        refresh_count=_count(document.get("refreshCount")),
        forced_today=_count(forced),
        logged_in_at=moment_of(document.get("loggedInAt")),
        updated_at=moment_of(document.get("updatedAt")) or now,
        leased_for=0.0,
        in_doubt=attempt_id is not None,
        read_at=None,
        provider=provider,
        source=SOURCE,
        client_id=_text(document.get("clientId")),
    )


def today(now: float) -> str:
    """The day, in UTC."""
    return datetime.fromtimestamp(now, tz=UTC).date().isoformat()


def unusable(error: OSError | ValueError) -> StorageUnavailable:
    """What a person is told about a file that cannot be used."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    name = getattr(error, "filename", None)
    where = f" ({name})" if name else ""
    return StorageUnavailable(f"The token file cannot be used now: {reason}{where}. Nothing was changed.")


def _parse(path: Path, content: bytes | None) -> Document | None:
    if content is None:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise DamagedDocument(f"{path} is not a whole JSON object; put a good one back, or log in again")
    return document


def _put_back(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    elif read_private(path) != content:
        write_private(path, content, durable=True)


def document_path(token_file: Path, user: str) -> Path:
    """Where a user's document lies, with ``default``'s at ``token_file``."""
    return token_file if user == DEFAULT_USER else _users_folder(token_file) / f"{_hashed(user)}.json"


def _users_folder(token_file: Path) -> Path:
    return token_file.parent / "users"


def _hashed(user: str) -> str:
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _one_of(kind: type[RowStatus], value: object) -> RowStatus | None:
    return next((item for item in kind if item.value == value), None)
