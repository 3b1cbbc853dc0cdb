"""Settings: every fault at once, with name, shape and mend, and never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from litellm_oauth.errors import SettingsError
from litellm_oauth.networks import TrustedProxies
from litellm_oauth.settings import RedisSettings, Settings, config_path, load_settings, parse_settings

KEY = "0123456789abcdef" * 4
ENVIRONMENT = {
    "CLAUDE_TOKEN_ENCRYPTION_KEY": KEY,
    "LITELLM_OAUTH_DATABASE_URL": "postgresql://llmproxy@db:5432/litellm",
    "LITELLM_OAUTH_DATABASE_PASSWORD": "database-password",
}
PROVIDER = {
    "authorize_url": "https://login.example/oauth/authorize",
    "token_url": "https://login.example/oauth/token",
    "redirect_uri": "https://login.example/code",
    "client_id": "our-client",
}


def parse(
    changes: Mapping[str, Any] | None = None,
    provider: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    section = {
        "encryption_key": "${CLAUDE_TOKEN_ENCRYPTION_KEY}",
        "provider": {**PROVIDER, **(provider or {})},
        **(changes or {}),
    }
    return parse_settings(section, ENVIRONMENT if environment is None else environment)


def faults(*arguments: Any, **keywords: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        parse(*arguments, **keywords)
    return caught.value.faults


def test_defaults_are_those_of_the_documents() -> None:
    settings = parse()
    assert (settings.enabled, settings.use_database, settings.auto_refresh) == (True, True, True)
    assert settings.refresh_buffer == 300
    assert settings.token_file == Path("~/.litellm/claude_tokens.json").expanduser()
    assert settings.provider.issuer == "https://login.example"
    assert settings.provider.scopes == ("user:inference", "user:profile")
    assert settings.provider.revoke_url is None
    assert settings.provider.body == "json"
    assert settings.provider.client_authentication == "body"
    assert settings.provider.require_issuer is False


def test_all_faults_are_listed_at_once_with_name_and_mend() -> None:
    found = faults(
        {
            "refresh_buffer": -1,
            "auto_refresh": "maybe",
            "allowed_api_bases": ["ftp://x"],
            "encryption_key": "",
        },
        {"token_url": "", "client_id": None, "body": "xml", "token_timeout": "soon"},
        environment={},
    )
    text = "\n".join(found)
    for name in (
        "claude_oauth.refresh_buffer",
        "claude_oauth.auto_refresh",
        "claude_oauth.allowed_api_bases",
        "claude_oauth.encryption_key",
        "claude_oauth.provider.token_url",
        "claude_oauth.provider.client_id",
        "claude_oauth.provider.body",
        "claude_oauth.provider.token_timeout",
        "LITELLM_OAUTH_DATABASE_URL",
    ):
        assert name in text
    assert all("; " in fault for fault in found)


def test_basic_without_a_secret_is_refused_in_one_sentence() -> None:
    basic = {"client_authentication": "basic"}
    assert faults(None, basic) == (
        "claude_oauth.provider.client_authentication: is basic, which needs a client_secret; "
        "set CLAUDE_OAUTH_CLIENT_SECRET or CLAUDE_OAUTH_CLIENT_SECRET_FILE, or write body",
    )
    given = parse(None, basic, {**ENVIRONMENT, "CLAUDE_OAUTH_CLIENT_SECRET": "client-secret"})
    assert (given.provider.client_authentication, given.provider.client_secret) == ("basic", "client-secret")
    assert not parse_settings({"enabled": False, "provider": basic}, {}).enabled


@pytest.mark.parametrize(("key", "value"), [("client_authentication", "post"), ("require_issuer", "often")])
def test_words_that_the_provider_s_settings_do_not_know_are_refused(key: str, value: str) -> None:
    (fault,) = faults(None, {key: value})
    assert fault.startswith(f"claude_oauth.provider.{key}: ")


def test_a_misspelt_setting_is_refused_with_the_one_that_was_meant() -> None:
    assert faults({"refresh_bufer": 60}) == (
        "claude_oauth.refresh_bufer: is not a setting; did you mean refresh_buffer?",
    )


@pytest.mark.parametrize("key", ["short", KEY[:-1], "!" * 44, "0" * 64])
def test_a_malformed_key_is_refused_without_being_shown(key: str) -> None:
    found = faults({"encryption_key": key})
    assert "claude_oauth.encryption_key" in found[0]
    assert "openssl rand -hex 32" in found[0]
    assert key not in found[0]


def test_no_secret_is_in_a_fault_or_in_the_repr_of_the_settings() -> None:
    secrets = {
        "CLAUDE_TOKEN_ENCRYPTION_KEY": KEY,
        "LITELLM_OAUTH_DATABASE_URL": "mysql://user:url-password@db/x",
        "LITELLM_OAUTH_DATABASE_PASSWORD": "database-password",
        "LITELLM_MASTER_KEY": "sk-master",
    }
    text = "\n".join(faults({"refresh_buffer": "sk-wrong-place"}, {"client_secret": 5}, environment=secrets))
    for secret in ("url-password", "database-password", "sk-master", "sk-wrong-place", KEY):
        assert secret not in text
    shown = repr(
        parse(None, {"client_secret": "client-secret"}, {**ENVIRONMENT, "LITELLM_MASTER_KEY": "sk-master"})
    )
    for secret in ("client-secret", "database-password", "sk-master", KEY):
        assert secret not in shown


def test_both_ways_to_name_the_environment_are_expanded() -> None:
    environment = {**ENVIRONMENT, "WHO": "client-from-environment", "HOST": "other.example"}
    provider = {"client_id": "os.environ/WHO", "token_url": "https://${HOST}/token"}
    settings = parse(None, provider, environment)
    assert settings.provider.client_id == "client-from-environment"
    assert settings.provider.token_url == "https://other.example/token"


def test_a_fallback_names_a_variable_that_is_not_read_here() -> None:
    section = {"fallback_to_api_key": {"claude-opus": "os.environ/PLAIN"}}
    assert parse(section).fallback_to_api_key == {"claude-opus": "PLAIN"}


@pytest.mark.parametrize(
    "value", [{"m": "sk-pasted-key"}, {"m": 1}, {1: "os.environ/A"}, ["os.environ/A"], "x"]
)
def test_a_fallback_that_is_no_reference_is_refused_without_being_shown(value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        parse({"fallback_to_api_key": value})
    assert "claude_oauth.fallback_to_api_key: is" in caught.value.message
    assert "sk-pasted-key" not in caught.value.message


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    key, password, master = tmp_path / "key", tmp_path / "password", tmp_path / "master"
    key.write_text(f"{KEY}\n")
    password.write_text("from-file\n")
    master.write_text("sk-master\n")
    settings = parse(
        environment={
            "CLAUDE_TOKEN_ENCRYPTION_KEY_FILE": str(key),
            "LITELLM_OAUTH_DATABASE_URL": "postgresql://llmproxy@db/litellm",
            "LITELLM_OAUTH_DATABASE_PASSWORD_FILE": str(password),
            "LITELLM_MASTER_KEY_FILE": str(master),
        }
    )
    assert settings.encryption_key == KEY
    assert settings.database is not None
    assert settings.database.password == "from-file"
    assert settings.master_key == "sk-master"


def test_a_secret_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    found = faults(
        environment={
            **ENVIRONMENT,
            "LITELLM_MASTER_KEY_FILE": str(tmp_path / "none"),
            "CLAUDE_OAUTH_CLIENT_SECRET_FILE": str(tmp_path / "empty"),
        }
    )
    assert [fault.split(":")[0] for fault in found] == [
        "CLAUDE_OAUTH_CLIENT_SECRET_FILE",
        "LITELLM_MASTER_KEY_FILE",
    ]


def test_a_variable_and_its_file_may_agree_but_not_differ(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("database-password")
    agreeing = {**ENVIRONMENT, "LITELLM_OAUTH_DATABASE_PASSWORD_FILE": str(tmp_path / "password")}
    assert parse(environment=agreeing).database is not None
    found = faults(environment={**agreeing, "LITELLM_OAUTH_DATABASE_PASSWORD": "another"})
    assert found[0].startswith("LITELLM_OAUTH_DATABASE_PASSWORD: ")


def test_old_keys_are_separated_by_commas_or_lines() -> None:
    other = KEY[::-1]
    environment = {**ENVIRONMENT, "CLAUDE_TOKEN_ENCRYPTION_KEYS_OLD": f"{KEY},\n{other}\n"}
    assert parse(environment=environment).encryption_keys_old == (KEY, other)


def test_no_token_may_be_allowed_to_travel_over_plain_http() -> None:
    open_base = {"allowed_api_bases": ["https://api.example.com", "http://api.example.com"]}
    assert faults(open_base)[0].startswith("claude_oauth.allowed_api_bases: is plain http")
    assert parse({"sandbox": True, **open_base}).allowed_api_bases == tuple(open_base["allowed_api_bases"])


def test_plain_http_is_for_loopback_and_the_sandbox_only() -> None:
    plain = {"token_url": "http://login.example/oauth/token"}
    assert faults(None, plain)[0].startswith("claude_oauth.provider.token_url: is plain http")
    assert parse({"sandbox": True}, plain).provider.token_url == plain["token_url"]
    assert parse(None, {"token_url": "http://127.0.0.1:4010/token"}).provider.token_url.startswith(
        "http://127"
    )


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"sandbox": True, "public_url": "http://localhost:4000"}, True),
        ({"sandbox": True, "public_url": "http://127.0.0.1:4000"}, True),
        ({"sandbox": True, "public_url": "https://gateway.example"}, False),
        ({"sandbox": False, "public_url": "http://localhost:4000"}, False),
    ],
)
def test_the_anonymous_api_is_for_a_sandbox_on_loopback_only(changes: dict[str, Any], allowed: bool) -> None:
    if allowed:
        assert parse({"anonymous_api": True, **changes}).anonymous_api
    else:
        assert faults({"anonymous_api": True, **changes})[0].startswith("claude_oauth.anonymous_api")


def test_the_database_falls_back_to_litellms_without_what_libpq_refuses() -> None:
    environment = {
        "CLAUDE_TOKEN_ENCRYPTION_KEY": KEY,
        "DATABASE_URL": "postgresql://llmproxy:pw@db:5432/litellm?schema=public&connection_limit=5&sslmode=require",
    }
    database = parse(environment=environment).database
    assert database is not None
    assert database.url == "postgresql://llmproxy:pw@db:5432/litellm?sslmode=require"


def test_without_a_redis_there_is_none() -> None:
    assert parse().redis is None


def redis(section: Mapping[str, Any] | None = None, **environment: str) -> RedisSettings:
    found = parse(section, environment={**ENVIRONMENT, **environment}).redis
    assert found is not None
    return found


def test_redis_comes_from_the_section_or_the_environment_and_its_password_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("redis-password\n")
    secret = {"LITELLM_OAUTH_REDIS_PASSWORD_FILE": str(tmp_path / "password")}
    found = redis({"redis_url": "redis://litellm@cache", "redis_timeout": 0.5}, **secret)
    assert found == RedisSettings("cache", 6379, 0, "litellm", "redis-password", tls=False, timeout=0.5)
    found = redis(LITELLM_OAUTH_REDIS_URL="rediss://cache.example:6380/3", LITELLM_OAUTH_REDIS_PASSWORD="p")
    assert found == RedisSettings("cache.example", 6380, 3, None, "p", tls=True, timeout=0.25)
    assert redis(LITELLM_OAUTH_REDIS_URL="redis://me:a%2Fb@[::1]").password == "a/b"


def test_redis_falls_back_to_litellms_variables() -> None:
    found = redis(REDIS_HOST="cache", REDIS_PORT="6380", REDIS_PASSWORD="p")
    assert found == RedisSettings("cache", 6380, 0, None, "p", tls=False, timeout=0.25)
    ours = redis(REDIS_HOST="cache", REDIS_PASSWORD="p", LITELLM_OAUTH_REDIS_URL="redis://ours")
    assert (ours.host, ours.password) == ("ours", None)


@pytest.mark.parametrize(
    "url",
    [
        "http://cache",
        "redis:///0",
        "redis://cache/-1",
        "redis://cache:port",
        "redis://cache:0",
        "redis://cache/name",
        "redis://cache/0?ssl_cert_reqs=none",
        "redis://a b",
        "cache:6379",
    ],
)
def test_a_redis_url_that_cannot_be_used_is_refused_without_being_shown(url: str) -> None:
    for environment, section in (({"LITELLM_OAUTH_REDIS_URL": url}, {}), ({}, {"redis_url": url})):
        (fault,) = faults(section, environment={**ENVIRONMENT, **environment})
        assert "redis" in fault.split(":")[0].lower()
        assert url not in fault
    assert faults({"redis_timeout": 0})[0].startswith("claude_oauth.redis_timeout")


def test_a_password_of_redis_is_in_no_repr() -> None:
    environment = {**ENVIRONMENT, "LITELLM_OAUTH_REDIS_URL": "redis://me:redis-password@cache"}
    assert "redis-password" not in repr(parse(environment=environment))


def test_the_digests_of_users_keys_are_read_as_sha256sum_writes_them() -> None:
    keys = f"{'a' * 64} alice\n{'b' * 64}  bob@example.org\n"
    settings = parse(environment={**ENVIRONMENT, "LITELLM_OAUTH_USER_KEYS": keys})
    assert settings.user_keys == {"a" * 64: "alice", "b" * 64: "bob@example.org"}
    assert "a" * 64 not in repr(settings)
    assert parse().user_keys == {}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("alice", "SHA-256"),
        (f"{'a' * 63} alice", "SHA-256"),
        ("sk-a-key-itself alice", "SHA-256"),
        (f"{'c' * 64}", "names no user"),
        (f"{'c' * 64} default", "names no user"),
        (f"{'c' * 64} default_user_id", "names no user"),
        (f"{'b' * 64} carol", "same key to a second user"),
    ],
)
def test_a_line_of_users_keys_that_cannot_be_is_named_and_not_shown(line: str, fault: str) -> None:
    keys = f"{'b' * 64} bob\n{line}"
    (found,) = faults(environment={**ENVIRONMENT, "LITELLM_OAUTH_USER_KEYS": keys})
    assert found.startswith("LITELLM_OAUTH_USER_KEYS: line 2 ")
    assert fault in found
    assert line.split()[0] not in found


def test_a_module_that_is_switched_off_asks_for_nothing() -> None:
    assert not parse_settings({"enabled": False}, {}).enabled


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("a: [", "not valid YAML"),
        ("model_list: []", "claude_oauth: is missing"),
        ("claude_oauth: yes please", "claude_oauth: is not a mapping"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=said):
        load_settings({"LITELLM_OAUTH_CONFIG": str(path)})


def test_the_config_file_is_where_the_environment_says() -> None:
    assert config_path({"LITELLM_OAUTH_CONFIG": "/a", "CONFIG_FILE_PATH": "/b"}) == Path("/a")
    assert config_path({"CONFIG_FILE_PATH": "/b"}) == Path("/b")
    assert config_path({}) == Path("/app/config.yaml")


def test_what_users_may_call_and_send_is_read() -> None:
    settings = parse()
    assert (settings.extra_routes, settings.max_body_mb, settings.max_upload_mb) == ((), 32, 512)
    assert (settings.trusted_proxies, settings.cloud_metadata) == (TrustedProxies(), False)
    settings = parse(
        {
            "extra_routes": ["/v1/rerank", "/v1/files/*"],
            "max_body_mb": "600",
            "trusted_proxies": ["10.0.0.0/8", "host"],
            "cloud_metadata": True,
        }
    )
    assert settings.extra_routes == ("/v1/rerank", "/v1/files/*")
    assert (settings.max_body_mb, settings.max_upload_mb) == (600, 600)
    assert settings.trusted_proxies.host
    assert settings.cloud_metadata


def test_what_users_may_not_call_and_send_is_refused_with_the_mend() -> None:
    found = faults(
        {
            "extra_routes": ["/key/generate", "/v1/rerank"],
            "max_body_mb": 64,
            "max_upload_mb": 63,
            "trusted_proxies": ["0.0.0.0/0"],
            "cloud_metadata": "perhaps",
        }
    )
    assert [fault.split(":", 1)[0].removeprefix("claude_oauth.") for fault in found] == [
        *("extra_routes", "max_upload_mb", "trusted_proxies", "cloud_metadata"),
    ]
    assert found[0].endswith("; leave it out")
    assert found[1] == "claude_oauth.max_upload_mb: is out of range; write 64 to 1048576"


@pytest.mark.parametrize("value", [0, 1025, 1.5, "1.5", True, "many", [], "-1"], ids=str)
def test_the_largest_body_is_a_whole_number(value: object) -> None:
    (fault,) = faults({"max_body_mb": value})
    assert fault.startswith("claude_oauth.max_body_mb: ")
    assert fault.endswith("; write 1 to 1024")


@pytest.mark.parametrize(
    ("source", "said", "asks"),
    [
        ("oidc/google/audience", "", True),
        ("oidc/google/audience", "\n  cloud_metadata: false", False),
        ("os.environ/TOKEN", "", False),
    ],
)
def test_the_cloud_is_asked_if_a_model_wants_its_token(
    tmp_path: Path, source: str, said: str, asks: bool
) -> None:
    file = tmp_path / "config.yaml"
    model = f"{{model_name: m, litellm_params: {{anthropic_identity_token: {source}}}}}"
    file.write_text(
        f"model_list: [{model}, odd, {{litellm_params: 7}}]\nclaude_oauth:\n  enabled: false{said}\n"
    )
    assert load_settings({"LITELLM_OAUTH_CONFIG": str(file)}).cloud_metadata is asks
