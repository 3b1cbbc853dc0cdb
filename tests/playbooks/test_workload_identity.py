"""Models with workload identity federation: what of them reaches LiteLLM, and what is refused before that."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from joserfc.jwk import ECKey

from support.role import RefusedError, Rendered, rendered

KEY = "ISSUER_SIGNING_KEY"
BASE = "https://claude.company.example"
RULE = {"federation_rule_id": "fdrl_1", "organization_id": "0123", "service_account_id": "svac_1"}
ISSUER = {
    "identity_source": "internal_issuer",
    "issuer_url": "https://issuer.example",
    "issuer_subject": "gateway",
    "issuer_signing_key_ref": f"os.environ/{KEY}",
}
KEYCLOAK = {
    "identity_source": "keycloak",
    "keycloak_token_url": "https://keycloak.example/token",
    "keycloak_client_id": "gateway",
    "keycloak_client_secret_ref": "os.environ/KEYCLOAK_SECRET",
}
PEM = ECKey.generate_key("P-256").as_pem(private=True).decode()


def model(name: str, workload_identity: Any, **others: Any) -> dict[str, Any]:
    return {"name": name, "model": "claude-x", "workload_identity": workload_identity, **others}


def variables(*models: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {
        "litellm_oauth_api_base": BASE,
        "litellm_oauth_models": list(models),
        "litellm_oauth_api_keys": {KEY: PEM, "KEYCLOAK_SECRET": "obviously-fake"},
        "litellm_oauth_identity_directory": "/srv/identity",
        **others,
    }


@pytest.fixture(scope="module")
def good() -> Rendered:
    """Every source beside a model of the other kinds."""
    return rendered(
        variables(
            {"name": "own", "model": "claude-x"},
            {"name": "keyed", "model": "claude-x", "api_key": f"os.environ/{KEY}"},
            model("issuer", {**RULE, **ISSUER, "issuer_audience": "a", "issuer_ttl_seconds": "60"}),
            model("file", {**RULE, "identity_token_file": "nested/gateway.jwt"}),
            model("cloud", {**RULE, "identity_token": "oidc/google/https://api.anthropic.com"}),
            model("keycloak", {**RULE, "federation_workspace_id": 7, **KEYCLOAK}),
        )
    )


def test_the_readme_s_example_is_taken_as_it_stands() -> None:
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    (block,) = re.findall(r"### Workload identity federation\n.*?```yaml\n(.*?)```", text, re.DOTALL)
    found = rendered(
        {**yaml.safe_load(block), "vault_issuer_signing_key": PEM, "litellm_oauth_api_base": BASE}
    )
    assert params(found, "claude-sonnet-4") == {"api_key": "oauth"}
    example = params(found, "claude-opus-4.1")
    assert "api_key" not in example
    assert example["anthropic_issuer_signing_key_ref"] == "os.environ/LITELLM_OAUTH_KEY_ISSUER_SIGNING_KEY"


def params(good: Rendered, name: str) -> dict[str, Any]:
    (found,) = [one["litellm_params"] for one in good.config["model_list"] if one["model_name"] == name]
    return {key: value for key, value in found.items() if key not in ("model", "api_base")}


def test_other_kinds_of_models_stay_what_they_are(good: Rendered) -> None:
    assert params(good, "own") == {"api_key": "oauth"}
    assert params(good, "keyed") == {"api_key": f"os.environ/LITELLM_OAUTH_KEY_{KEY}"}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("issuer", {**ISSUER, "issuer_audience": "a", "issuer_ttl_seconds": 60}),
        ("file", {"identity_token_file": "/run/identity/nested/gateway.jwt"}),
        ("cloud", {"identity_token": "oidc/google/https://api.anthropic.com"}),
        # LiteLLM passes over what is not text
        ("keycloak", {**KEYCLOAK, "federation_workspace_id": "7"}),
    ],
)
def test_litellm_gets_its_own_names_and_no_key(good: Rendered, name: str, given: dict[str, Any]) -> None:
    inside = {
        f"anthropic_{key}": value.replace("os.environ/", "os.environ/LITELLM_OAUTH_KEY_")
        if isinstance(value, str)
        else value
        for key, value in {**RULE, **given}.items()
    }
    assert params(good, name) == inside


def test_one_caller_s_error_takes_no_such_model_from_the_others(good: Rendered) -> None:
    assert [one["model_name"] for one in good.config["model_list"] if "model_info" not in one] == ["keyed"]


def test_identity_tokens_come_from_one_folder_and_go_to_the_allowed_addresses_alone(good: Rendered) -> None:
    environment = good.service["environment"]
    assert environment["LITELLM_OIDC_ALLOWED_CREDENTIAL_DIRS"] == "/run/identity"
    assert environment["LITELLM_ANTHROPIC_WIF_ALLOWED_HOSTS"] == f"{BASE}:443"
    mounts = [mount for mount in _flat(good.service["mounts"]) if mount["target"] == "/run/identity"]
    assert [(mount["source"], mount["read_only"]) for mount in mounts] == [("/srv/identity", True)]


def test_no_secret_is_in_the_description(good: Rendered) -> None:
    assert PEM.splitlines()[1] not in str(good)
    assert KEY in good.service["environment"]["LITELLM_OAUTH_API_KEYS"].split()


@pytest.mark.parametrize(
    ("bases", "hosts"),
    [
        (["https://a.example/api", "https://b.example:8443"], "https://a.example:443,https://b.example:8443"),
        (["http://127.0.0.1:4010", "https://[::1]"], "http://127.0.0.1:4010,https://[::1]:443"),
    ],
)
def test_each_address_is_allowed_with_its_port(bases: list[str], hosts: str) -> None:
    found = rendered(
        variables(
            model("a", {**RULE, **ISSUER}, api_base=bases[0]),
            litellm_oauth_allowed_api_bases=bases,
            litellm_oauth_identity_directory="",
        )
    )
    assert found.service["environment"]["LITELLM_ANTHROPIC_WIF_ALLOWED_HOSTS"] == hosts
    assert "/run/identity" not in [mount["target"] for mount in _flat(found.service["mounts"])]


# fault by fault: the models and other variables, and what the message must say
FAULTS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "key beside": (
        [model("a", {**RULE, **ISSUER}, api_key=f"os.environ/{KEY}")],
        {},
        "a workload_identity beside an api_key or fallback_to_api_key",
    ),
    "no rule": (
        [model("a", {"organization_id": "0123", **ISSUER})],
        {},
        "missing required arguments: federation_rule_id found in litellm_oauth_models -> workload_identity",
    ),
    "no organization": (
        [model("a", {"federation_rule_id": "fdrl_1", **ISSUER})],
        {},
        "missing required arguments: organization_id found in litellm_oauth_models -> workload_identity",
    ),
    "unknown": ([model("a", {**RULE, **ISSUER, "isuer": "x"})], {}, "workload_identity.isuer"),
    "no dictionary": ([model("a", "fdrl_1")], {}, "'workload_identity'"),
    "no source": ([model("a", RULE)], {}, "without a source of its identity token, or with several"),
    "two sources": (
        [model("a", {**RULE, **ISSUER, "identity_token_file": "x"})],
        {},
        "without a source of its identity token, or with several",
    ),
    "unknown source": ([model("a", {**RULE, "identity_source": "magic"})], {}, "identity_source"),
    "issuer without key": (
        [model("a", {**RULE, **{k: v for k, v in ISSUER.items() if "signing" not in k}})],
        {},
        "internal_issuer that lacks one of issuer_url, issuer_subject, issuer_signing_key_ref",
    ),
    "keycloak without client": (
        [model("a", {**RULE, **{k: v for k, v in KEYCLOAK.items() if "client_id" not in k}})],
        {},
        "identity_source keycloak that lacks one of",
    ),
    "issuer of another source": (
        [model("a", {**RULE, "identity_token_file": "x", "issuer_url": "https://issuer.example"})],
        {},
        "issuer_… but not identity_source: internal_issuer",
    ),
    "keycloak of another source": (
        [model("a", {**RULE, **ISSUER, "keycloak_scope": "x"})],
        {},
        "keycloak_… but not identity_source: keycloak",
    ),
    "pasted key": (
        [model("a", {**RULE, **ISSUER, "issuer_signing_key_ref": "hunter2-hunter2-hunter2"})],
        {},
        "that is not `os.environ/NAME` (its value is not shown)",
    ),
    "key that is nowhere": (
        [model("a", {**RULE, **ISSUER, "issuer_signing_key_ref": "os.environ/NOBODY_HAS_IT"})],
        {},
        "names NOBODY_HAS_IT in os.environ/",
    ),
    "key that is no PEM": (
        [model("a", {**RULE, **ISSUER})],
        {"litellm_oauth_api_keys": {KEY: "hunter2 hunter2 hunter2"}},
        "litellm_oauth_api_keys is malformed (its values are not shown)",
    ),
    "encrypted key": (
        [model("a", {**RULE, **ISSUER})],
        {"litellm_oauth_api_keys": {KEY: PEM.replace("PRIVATE", "ENCRYPTED PRIVATE")}},
        "or a private key in PEM, not encrypted",
    ),
    "empty": (
        [model("a", {**RULE, **ISSUER, "issuer_audience": ""})],
        {},
        "a value that is empty or holds spaces",
    ),
    "too long a life": (
        [model("a", {**RULE, **ISSUER, "issuer_ttl_seconds": 3601})],
        {},
        "issuer_ttl_seconds that is not between 1 and 3600",
    ),
    "pasted token": (
        [model("a", {**RULE, "identity_token": "hunter2-hunter2-hunter2"})],
        {},
        "an identity_token that is not such as oidc/google/AUDIENCE (its value is not shown)",
    ),
    "the gateway's own secret": (
        [model("a", {**RULE, "identity_token": "oidc/file//run/secrets/master_key"})],
        {},
        "one in a file is an identity_token_file",
    ),
    "file elsewhere": (
        [model("a", {**RULE, "identity_token_file": "/run/secrets/master_key"})],
        {},
        "an identity_token_file that is not in litellm_oauth_identity_directory",
    ),
    "file above": (
        [model("a", {**RULE, "identity_token_file": "x/../../secrets/master_key"})],
        {},
        "an identity_token_file that is not in litellm_oauth_identity_directory",
    ),
    "no folder": (
        [model("a", {**RULE, "identity_token_file": "x"})],
        {"litellm_oauth_identity_directory": ""},
        "litellm_oauth_identity_directory is empty: name the folder",
    ),
    "no absolute folder": (
        [model("a", {**RULE, "identity_token_file": "x"})],
        {"litellm_oauth_identity_directory": "srv"},
        'litellm_oauth_identity_directory is "srv": give the absolute path',
    ),
    "address that is not allowed": (
        [model("a", {**RULE, **ISSUER}, api_base="https://else.example")],
        {},
        "litellm_oauth_allowed_api_bases lacks https://else.example",
    ),
    "plain http": (
        [model("a", {**RULE, **ISSUER}, api_base="http://sandbox:4010")],
        {"litellm_oauth_allowed_api_bases": ["http://sandbox:4010"]},
        "a workload_identity with http://sandbox:4010: LiteLLM sends identity tokens over https:// only",
    ),
    "keycloak over plain http": (
        [model("a", {**RULE, **KEYCLOAK, "keycloak_token_url": "http://keycloak/token"})],
        {},
        "a workload_identity with http://keycloak/token",
    ),
}


@pytest.fixture(scope="module")
def together() -> str:
    """What is said of all the faults that can be made at once."""
    models = [
        {**one, "name": f"m{number}"}
        for number, (models, others, _) in enumerate(FAULTS.values())
        for one in models
        if not others
    ]
    with pytest.raises(RefusedError) as refused:
        rendered(variables(*models))
    return str(refused.value)


@pytest.mark.parametrize("fault", [name for name, (_, others, _) in FAULTS.items() if not others])
def test_a_fault_of_a_model_is_named_before_anything_is_touched(together: str, fault: str) -> None:
    assert FAULTS[fault][2] in together
    assert "hunter2" not in together


@pytest.mark.parametrize("fault", [name for name, (_, others, _) in FAULTS.items() if others])
def test_a_fault_of_models_and_other_variables_is_the_only_one_named(fault: str) -> None:
    models, others, message = FAULTS[fault]
    with pytest.raises(RefusedError) as refused:
        rendered(variables(*models, **others))
    said = str(refused.value)
    assert message in said
    assert " - " not in said
    assert "hunter2" not in said


def _flat(mounts: list[Any]) -> list[dict[str, Any]]:
    return [one for mount in mounts for one in (mount if isinstance(mount, list) else [mount])]
