"""Every setting, read once and checked whole: one SettingsError lists all that is wrong.

Settings come from ``claude_oauth:`` in config.yaml, where ``${NAME}`` and ``os.environ/NAME`` stand for the
environment, and from the environment itself. Each variable NAME may be given as a file in NAME_FILE instead.
No fault text holds a value that could be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import yaml

from . import networks, open_routes
from .errors import InvalidInput, SettingsError
from .keys import decode_key
from .networks import TrustedProxies
from .settings_reader import Environment, Section, is_loopback
from .tokens import check_user_id, moment_of

DAY = 86_400.0
DEFAULT_CONFIG_PATH = "/app/config.yaml"
ENCRYPTION_KEY = "CLAUDE_TOKEN_ENCRYPTION_KEY"
OLD_ENCRYPTION_KEYS = "CLAUDE_TOKEN_ENCRYPTION_KEYS_OLD"
USER_KEYS = "LITELLM_OAUTH_USER_KEYS"
# Whose login the master key uses, and what LiteLLM calls its owner.
_MASTER_KEY_USERS = frozenset(("default", "default_user_id"))
_DIGEST = re.compile("[0-9a-f]{64}")
# What Prisma, which LiteLLM uses, reads from a DATABASE_URL and libpq refuses.
_PRISMA_PARAMETERS = re.compile(
    "schema|connection_limit|pool_timeout|pgbouncer|socket_timeout|statement_cache_size"
    "|ssl(accept|identity|password)"
)


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """The authorization server. ``token_timeout`` is in seconds and covers one whole call.

    ``client_authentication`` is how the client proves itself (RFC 6749 §2.3.1). ``require_issuer`` says that
    this server always names itself in the redirect (RFC 9207 §2.4).
    """

    issuer: str
    require_issuer: bool
    authorize_url: str
    token_url: str
    revoke_url: str | None
    redirect_uri: str
    client_id: str
    client_secret: str | None = field(repr=False)
    client_authentication: Literal["body", "basic"]
    scopes: tuple[str, ...]
    body: Literal["json", "form"]
    authorize_parameters: Mapping[str, str]
    token_timeout: float


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """A libpq URL and the password to use with it (None: the URL's own, or none)."""

    url: str = field(repr=False)
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """A Redis server. ``timeout`` (seconds) covers connection and answer together."""

    host: str
    port: int
    database: int
    username: str | None
    password: str | None = field(repr=False)
    tls: bool
    timeout: float


@dataclass(frozen=True, slots=True)
class EnvironmentTokens:
    """``default``'s tokens as the environment gives them. ``expires_at`` is in seconds since the epoch."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Lengths of time are in seconds. Lists and names are those of the design."""

    enabled: bool
    use_database: bool
    auto_refresh: bool
    refresh_buffer: float
    token_file: Path
    journal_dir: Path
    single_host: bool
    forced_refreshes_per_day: int
    login_lifetime: float
    login_warning: float
    encryption_key: str = field(repr=False)
    encryption_keys_old: tuple[str, ...] = field(repr=False)
    anonymous_api: bool
    shared_default: bool
    sandbox: bool
    public_url: str
    allowed_api_bases: tuple[str, ...]
    # Whether messages that LiteLLM's router would only pass on go past it.
    direct_messages: bool
    # What clients call a model, and the variable with the API key for who never logged in.
    fallback_to_api_key: Mapping[str, str]
    # Routes of LiteLLM that are open to users' keys beside those that always are: `{name}` stands for one
    # segment of a path, `*` at the end for everything below. None of them is of LiteLLM's management.
    extra_routes: tuple[str, ...]
    # The largest body of a request, in MiB, and the largest of a file or batch that is sent with the caller's
    # own token, which is passed on as it comes in. The second is never below the first.
    max_body_mb: int
    max_upload_mb: int
    # The proxies whose X-Forwarded-For says where a request comes from.
    trusted_proxies: TrustedProxies
    # Whether the gateway may ask the cloud's metadata service, which gives out the machine's own credentials.
    cloud_metadata: bool
    provider: ProviderSettings
    database: DatabaseSettings | None
    redis: RedisSettings | None
    environment_tokens: EnvironmentTokens | None
    master_key: str | None = field(repr=False)
    # The SHA-256 of a gateway key, in hexadecimal, and the user it belongs to.
    user_keys: Mapping[str, str] = field(repr=False)


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where config.yaml is: LITELLM_OAUTH_CONFIG, else CONFIG_FILE_PATH, else /app/config.yaml."""
    env = os.environ if environ is None else environ
    return Path(env.get("LITELLM_OAUTH_CONFIG") or env.get("CONFIG_FILE_PATH") or DEFAULT_CONFIG_PATH)


def load_document(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The whole of config.yaml, LiteLLM's part as well. Raises SettingsError where it cannot be read."""
    path = config_path(environ)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SettingsError([f"{path}: cannot be read ({reason}); set LITELLM_OAUTH_CONFIG to it"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark is not None else ""
        raise SettingsError([f"{path}: is not valid YAML{where}; mend the file"]) from None
    return document if isinstance(document, dict) else {}


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read config.yaml and the environment. Raises SettingsError with every fault."""
    env = os.environ if environ is None else environ
    document = load_document(env)
    section = document.get("claude_oauth")
    if not isinstance(section, dict):
        shape = "is missing" if section is None else "is not a mapping"
        raise SettingsError(
            [f"claude_oauth: {shape} in {config_path(env)}; add the section with your provider's settings"]
        )
    return parse_settings({"cloud_metadata": _asks_the_cloud(document), **section}, env)


def _asks_the_cloud(document: Mapping[str, Any]) -> bool:
    """Whether a model has LiteLLM ask the machine's cloud for an identity token."""
    models = document.get("model_list")
    parameters = (
        [m.get("litellm_params") for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    )
    tokens = [p.get("anthropic_identity_token") for p in parameters if isinstance(p, dict)]
    return any(isinstance(token, str) and token.startswith("oidc/") for token in tokens)


def parse_settings(section: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Check the ``claude_oauth`` mapping against the environment. Raises SettingsError with every fault."""
    faults: list[str] = []
    env = Environment(environ, faults)
    top = Section(section, "claude_oauth", env, faults)
    enabled = top.boolean("enabled", True)
    # A switched-off module asks for nothing; what is given still has to have the right shape.
    top.required = enabled
    use_database = top.boolean("use_database", True)
    sandbox = top.boolean("sandbox", False)
    anonymous_api = top.boolean("anonymous_api", False)
    public_url = top.url("public_url", "http://localhost:4000")
    max_body_mb = top.whole("max_body_mb", 32, low=1, high=1024)
    settings = Settings(
        enabled=enabled,
        use_database=use_database,
        auto_refresh=top.boolean("auto_refresh", True),
        refresh_buffer=top.number("refresh_buffer", 300, low=0, high=86_400),
        token_file=Path(top.text("token_file", "~/.litellm/claude_tokens.json")).expanduser(),
        journal_dir=Path(top.text("journal_dir", "~/.litellm_journal")).expanduser(),
        single_host=top.boolean("single_host", False),
        forced_refreshes_per_day=round(top.number("forced_refreshes_per_day", 24, low=0, high=10_000)),
        login_lifetime=top.number("login_lifetime", 27 * DAY, low=0, high=3660 * DAY),
        login_warning=top.number("login_warning", 3 * DAY, low=0, high=366 * DAY),
        encryption_key=top.secret("encryption_key", ENCRYPTION_KEY),
        encryption_keys_old=tuple(env.get(OLD_ENCRYPTION_KEYS).replace(",", " ").split()),
        anonymous_api=anonymous_api,
        shared_default=top.boolean("shared_default", False),
        sandbox=sandbox,
        public_url=public_url,
        allowed_api_bases=top.urls("allowed_api_bases", secure=not sandbox),
        direct_messages=top.boolean("direct_messages", True),
        fallback_to_api_key=top.references("fallback_to_api_key"),
        extra_routes=_checked_words(top, "extra_routes", open_routes.faults_of),
        max_body_mb=max_body_mb,
        max_upload_mb=top.whole("max_upload_mb", max(512, max_body_mb), low=max_body_mb, high=1_048_576),
        trusted_proxies=networks.trusted_proxies(_checked_words(top, "trusted_proxies", networks.faults_of)),
        cloud_metadata=top.boolean("cloud_metadata", False),
        provider=_provider(top.section("provider"), sandbox),
        database=_database(env, faults, required=enabled and use_database),
        redis=_redis(top, env, faults),
        environment_tokens=_environment_tokens(env, faults),
        master_key=env.get("LITELLM_MASTER_KEY") or None,
        user_keys=_user_keys(env, faults),
    )
    if anonymous_api and not (sandbox and is_loopback(public_url)):
        faults.append(
            "claude_oauth.anonymous_api: true opens the login to everybody who reaches the port, so it is "
            "allowed only with sandbox: true and a public_url on loopback; set it to false"
        )
    _check_keys(settings, faults)
    top.refuse_unknown()
    if faults:
        raise SettingsError(faults)
    return settings


def _checked_words(
    section: Section, key: str, faults_of: Callable[[tuple[str, ...]], Iterable[str]]
) -> tuple[str, ...]:
    """A list of words that ``faults_of`` finds nothing wrong with."""
    words = section.words(key, ())
    for fault in faults_of(words):
        shape, _, mend = fault.rpartition("; ")
        section.fault(key, shape, mend)
    return words


def _check_keys(settings: Settings, faults: list[str]) -> None:
    named = [("claude_oauth.encryption_key", settings.encryption_key)] if settings.encryption_key else []
    named += [(f"{OLD_ENCRYPTION_KEYS}[{n}]", key) for n, key in enumerate(settings.encryption_keys_old)]
    for name, key in named:
        try:
            decode_key(key)
        except ValueError as error:
            faults.append(f"{name}: is {error}; make one with: openssl rand -hex 32")


def _provider(section: Section, sandbox: bool) -> ProviderSettings:
    authorize_url = section.url("authorize_url", secure=not sandbox)
    split = urlsplit(authorize_url)
    basic = section.choice("client_authentication", ("body", "basic"), "body") == "basic"
    provider = ProviderSettings(
        issuer=section.url("issuer", f"{split.scheme}://{split.netloc}" if authorize_url else ""),
        require_issuer=section.boolean("require_issuer", False),
        authorize_url=authorize_url,
        token_url=section.url("token_url", secure=not sandbox),
        revoke_url=section.url("revoke_url", "", secure=not sandbox) or None,
        redirect_uri=section.url("redirect_uri", secure=not sandbox),
        client_id=section.text("client_id"),
        client_secret=section.secret("client_secret", "CLAUDE_OAUTH_CLIENT_SECRET", default="") or None,
        client_authentication="basic" if basic else "body",
        scopes=section.words("scopes", ("user:inference", "user:profile")),
        body="form" if section.choice("body", ("json", "form"), "json") == "form" else "json",
        authorize_parameters=section.strings("authorize_parameters"),
        token_timeout=section.number("token_timeout", 30, low=1, high=300),
    )
    if basic and provider.client_secret is None and section.required:
        section.fault(
            "client_authentication",
            "is basic, which needs a client_secret",
            "set CLAUDE_OAUTH_CLIENT_SECRET or CLAUDE_OAUTH_CLIENT_SECRET_FILE, or write body",
        )
    section.refuse_unknown()
    return provider


def _environment_tokens(env: Environment, faults: list[str]) -> EnvironmentTokens | None:
    # Empty as they stand in an .env that waits for somebody's tokens.
    access_token = env.get("CLAUDE_ACCESS_TOKEN", may_be_empty=True)
    refresh_token = env.get("CLAUDE_REFRESH_TOKEN", may_be_empty=True)
    expires_at = env.get("CLAUDE_EXPIRES_AT")
    if not access_token:
        if refresh_token or expires_at:
            faults.append(
                "CLAUDE_ACCESS_TOKEN: is missing, but CLAUDE_REFRESH_TOKEN or CLAUDE_EXPIRES_AT is set; "
                "set all three, or none"
            )
        return None
    moment = moment_of(expires_at)
    if moment is None:
        faults.append(
            "CLAUDE_EXPIRES_AT: is no number; write the seconds since 1970 at which the token expires"
        )
        return None
    return EnvironmentTokens(access_token, refresh_token or None, moment)


def _user_keys(env: Environment, faults: list[str]) -> Mapping[str, str]:
    """Lines of a digest and a user, as ``sha256sum`` writes them for a file of that name."""
    found: dict[str, str] = {}
    for number, line in enumerate(env.get(USER_KEYS).splitlines(), 1):
        key_digest, _, user = line.partition(" ")
        user = user.strip()
        fault = None
        if not _DIGEST.fullmatch(key_digest):
            fault = "does not begin with a SHA-256 in hexadecimal"
        elif not _is_user(user):
            fault = "names no user who can have a key (default is the master key's own)"
        elif found.setdefault(key_digest, user) != user:
            fault = "gives the same key to a second user"
        if fault is not None:
            faults.append(f"{USER_KEYS}: line {number} {fault}; write SHA-256 and user on each line")
    return found


def _is_user(user: str) -> bool:
    try:
        return check_user_id(user) not in _MASTER_KEY_USERS
    except InvalidInput:
        return False


def _database(env: Environment, faults: list[str], *, required: bool) -> DatabaseSettings | None:
    if required and find_spec("psycopg") is None:
        faults.append(
            "claude_oauth.use_database: is true, but this image was built without the database client "
            "(DATABASE_CLIENT=no); take the image that has it, or set use_database: false"
        )
    name = "LITELLM_OAUTH_DATABASE_URL"
    url = env.get(name)
    if not url:
        name = "DATABASE_URL"
        url = _without_prisma_parameters(env.get(name))
    if not url:
        if required:
            faults.append(
                "LITELLM_OAUTH_DATABASE_URL: is missing (use_database is true); set it to "
                "postgresql://USER@HOST:5432/DATABASE and LITELLM_OAUTH_DATABASE_PASSWORD_FILE to the file "
                "with its password"
            )
        return None
    try:
        split = urlsplit(url)
        usable = split.scheme in ("postgresql", "postgres") and split.port != 0
    except ValueError:
        usable = False
    if not usable:
        faults.append(f"{name}: is not a URL of the form postgresql://USER@HOST:5432/DATABASE; correct it")
    return DatabaseSettings(url=url, password=env.get("LITELLM_OAUTH_DATABASE_PASSWORD") or None)


def _redis(section: Section, env: Environment, faults: list[str]) -> RedisSettings | None:
    timeout = section.number("redis_timeout", 0.25, low=0.01, high=5)
    name, url = "claude_oauth.redis_url", section.text("redis_url", "")
    if not url:
        name, url = "LITELLM_OAUTH_REDIS_URL", env.get("LITELLM_OAUTH_REDIS_URL")
    password = env.get("LITELLM_OAUTH_REDIS_PASSWORD")
    if not url and (host := env.get("REDIS_HOST")):
        # LiteLLM's own variables.
        name, url = "REDIS_HOST and REDIS_PORT", f"redis://{host}:{env.get('REDIS_PORT') or 6379}"
        password = password or env.get("REDIS_PASSWORD")
    if not url:
        return None
    try:
        split = urlsplit(url)
        port = 6379 if split.port is None else split.port
        database = int(split.path.removeprefix("/") or 0)
        usable = split.scheme in ("redis", "rediss") and bool(split.hostname) and port > 0 and database >= 0
        usable = usable and not (split.query or split.fragment or any(c.isspace() for c in url))
    except ValueError:
        usable = False
    if not usable:
        faults.append(
            f"{name}: is not a URL of the form redis://USER@HOST:6379/0 (rediss:// for TLS); correct it, or "
            "leave it out to do without Redis"
        )
        return None
    return RedisSettings(
        host=split.hostname or "",
        port=port,
        database=database,
        username=unquote(split.username or "") or None,
        password=password or unquote(split.password or "") or None,
        tls=split.scheme == "rediss",
        timeout=timeout,
    )


def _without_prisma_parameters(url: str) -> str:
    try:
        split = urlsplit(url)
    except ValueError:
        return url
    kept = [pair for pair in parse_qsl(split.query) if not _PRISMA_PARAMETERS.fullmatch(pair[0])]
    return urlunsplit(split._replace(query=urlencode(kept)))
