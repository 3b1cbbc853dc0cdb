"""Which guardrails of LiteLLM's the inventory may configure, and with which parameters.

LiteLLM leaves out what it does not understand of a guardrail, and starts without one that it cannot make: a
misspelt word would be a message that nobody checks. So everything is known here, or refused with the mend.
Each of these guardrails was run in the gateway's image.

Standard library only, and no import of this package: the check of the Ansible variables loads this file too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Check = Callable[[object], str | None]
_REFERENCE = "os.environ/"
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _boolean(value: object) -> str | None:
    return None if isinstance(value, bool) else "is no boolean; write true or false"


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value.strip() else "is no text; write one"


def _mapping(value: object) -> str | None:
    return None if isinstance(value, dict) else "is no mapping; write {NAME: value}"


def _one_of(*words: str) -> Check:
    def fault_of(value: object) -> str | None:
        right = isinstance(value, str) and value in words
        return None if right else f"is none of the possible words; write one of {', '.join(words)}"

    return fault_of


def _number(low: float, high: float, *, whole: bool = False) -> Check:
    kind = "whole number" if whole else "number"

    def fault_of(value: object) -> str | None:
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if right and low <= float(str(value)) <= high:
            return None
        return f"is no {kind} from {low:g} to {high:g}; write one"

    return fault_of


def _expression(value: object) -> str | None:
    if isinstance(value, str) and value:
        try:
            re.compile(value)
        except re.error:
            return "is no regular expression that Python understands; correct it"
        return None
    return "is no regular expression; write one as text"


def _list(of: Check, example: str) -> Check:
    def fault_of(value: object) -> str | None:
        if not isinstance(value, list) or not value:
            return f"is no list with an entry; write {example}"
        fault = next((fault for item in value if (fault := of(item)) is not None), None)
        return None if fault is None else f"holds an entry that {fault}"

    return fault_of


def _mapping_to(of: Check, example: str) -> Check:
    def fault_of(value: object) -> str | None:
        if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
            return f"is no mapping with an entry; write {example}"
        fault = next((fault for item in value.values() if (fault := of(item)) is not None), None)
        return None if fault is None else f"holds a value that {fault}"

    return fault_of


def _record(
    fields: Mapping[str, Check], *, needs: tuple[str, ...], either: tuple[str, ...] = (), example: str
) -> Check:
    """A mapping of these fields. ``either``: of which it needs at least one."""

    def fault_of(value: object) -> str | None:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            return f"is no mapping; write {example}"
        if any(name not in value for name in needs) or (either and not set(either) & set(value)):
            parts = [*needs, *([" or ".join(either)] if either else [])]
            return f"lacks some of {', '.join(parts)}; write {example}"
        for name, item in value.items():
            if name not in fields:
                return f"has a field that is not known; write some of {', '.join(fields)}"
            fault = fields[name](item)
            if fault is not None:
                return f"has {name}, which {fault}"
        return None

    return fault_of


def _address(value: object) -> str | None:
    example = "write one such as https://guardrail.example.com"
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        right = parts is not None and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        right = False
    if not right or parts is None or parts.scheme not in ("http", "https"):
        return f"is no address; {example}"
    if "@" in parts.netloc:
        return "holds a name or a password; write the address alone"
    if not isinstance(value, str) or not re.fullmatch("[!-~]+", value) or parts.query or parts.fragment:
        return f"is more than an address; {example}"
    return None


def _category(value: object) -> str | None:
    return (
        None if isinstance(value, str) and value in CATEGORIES else "is none of LiteLLM's; write one of them"
    )


def _pattern_name(value: object) -> str | None:
    return None if isinstance(value, str) and value in PATTERNS else "is none of LiteLLM's; write one of them"


# LiteLLM's files of words, and its patterns by name: one that it does not have would check nothing.
CATEGORIES = (
    *("age_discrimination", "bias_gender", "bias_racial", "bias_religious", "bias_sexual_orientation"),
    *("claims_fraud_coaching", "claims_medical_advice", "claims_phi_disclosure", "claims_prior_auth_gaming"),
    *("claims_system_override", "denied_financial_advice", "denied_insults", "denied_legal_advice"),
    *("denied_medical_advice", "disability", "gender_sexual_orientation", "harm_toxic_abuse"),
    *("harm_toxic_abuse_au", "harm_toxic_abuse_de", "harm_toxic_abuse_es", "harm_toxic_abuse_fr"),
    *("harmful_child_safety", "harmful_illegal_weapons", "harmful_self_harm", "harmful_violence"),
    *("military_status", "prompt_injection_data_exfiltration", "prompt_injection_jailbreak"),
    *("prompt_injection_malicious_code", "prompt_injection_sql", "prompt_injection_system_prompt"),
    "religion",
)
PATTERNS = (
    *("us_ssn", "us_ssn_no_dash", "email", "us_phone", "visa", "mastercard", "amex", "discover"),
    *("credit_card", "aws_access_key", "aws_secret_key", "github_token", "slack_token", "generic_api_key"),
    *("ipv4", "ipv6", "url", "passport_us", "passport_uk", "passport_germany", "passport_france"),
    *("passport_netherlands", "passport_canada", "passport_india", "passport_australia", "passport_china"),
    *("passport_japan", "gender_sexual_orientation", "race_ethnicity_national_origin", "religion"),
    *("age_discrimination", "disability", "marital_family_status", "military_status", "public_assistance"),
    *("weapons_firearms", "weapons_other", "explosives", "violence_threats", "terrorism"),
    *("self_harm_suicide", "illegal_activities", "harassment_hate", "nl_bsn_contextual", "br_cpf"),
    *("br_cpf_unformatted", "br_phone_landline", "br_phone_mobile", "br_cep", "br_cnpj", "br_rg"),
    *("au_tfn", "au_abn", "au_medicare", "iban", "fr_nir", "eu_iban_enhanced", "fr_phone", "eu_vat"),
    *("eu_passport_generic", "fr_postal_code", "street_address", "airline_pnr", "skywards_number"),
    *("uae_emirates_id", "uae_phone", "flight_number", "sg_nric", "sg_phone", "sg_postal_code"),
    *("passport_singapore", "sg_uen", "sg_bank_account", "ca_sin", "ca_ohip", "ca_on_drivers_licence"),
    *("ca_immigration_doc", "ca_bank_account", "ca_postal_code", "uoft_student_id", "uoft_utorid"),
    "uoft_tcard",
)

_BLOCK_OR_MASK = _one_of("BLOCK", "MASK")
_PATTERN_EXAMPLE = "{pattern_type: prebuilt, pattern_name: email, action: MASK}"
_pattern_fields = _record(
    {
        "pattern_type": _one_of("prebuilt", "regex"),
        "pattern_name": _pattern_name,
        "pattern": _expression,
        "name": _text,
        "action": _BLOCK_OR_MASK,
    },
    needs=("pattern_type", "action"),
    either=("pattern_name", "pattern"),
    example=_PATTERN_EXAMPLE,
)


def _pattern(value: object) -> str | None:
    fault = _pattern_fields(value)
    if fault is None and isinstance(value, dict):
        needed = "pattern" if value["pattern_type"] == "regex" else "pattern_name"
        if needed not in value:
            return (
                f"lacks {needed}; write {_PATTERN_EXAMPLE} or {{pattern_type: regex, pattern: …, action: …}}"
            )
    return fault


_SEVERITY = _one_of("high", "medium", "low")
_STREAMING: Mapping[str, Check] = {
    "streaming_end_of_stream_only": _boolean,
    "streaming_sampling_rate": _number(1, 1000, whole=True),
}
_SKIPPING: Mapping[str, Check] = {
    "skip_system_message_in_guardrail": _boolean,
    "skip_tool_message_in_guardrail": _boolean,
}
_TIMEOUT: Mapping[str, Check] = {"timeout": _number(0.1, 600)}
# The reference to a key is looked at apart.
_SERVICE: Mapping[str, Check] = {"api_base": _address, "api_key": _text, **_TIMEOUT}


@dataclass(frozen=True, slots=True)
class Guardrail:
    """What one kind of guardrail takes beside ``guardrail``, ``mode`` and ``default_on``.

    ``modes``: when it can look. ``needs``: parameters that it cannot be made without. ``either``: of which it
    needs at least one.
    """

    params: Mapping[str, Check]
    modes: tuple[str, ...] = ("pre_call", "during_call", "post_call")
    needs: tuple[str, ...] = ()
    either: tuple[str, ...] = field(default=())


GUARDRAILS: Mapping[str, Guardrail] = {
    # In the gateway itself.
    "litellm_content_filter": Guardrail(
        {
            "patterns": _list(_pattern, f"[{_PATTERN_EXAMPLE}]"),
            "blocked_words": _list(
                _record(
                    {"keyword": _text, "action": _BLOCK_OR_MASK, "description": _text},
                    needs=("keyword", "action"),
                    example="{keyword: WORD, action: BLOCK}",
                ),
                "[{keyword: WORD, action: BLOCK}]",
            ),
            "categories": _list(
                _record(
                    {
                        "category": _category,
                        "enabled": _boolean,
                        "action": _BLOCK_OR_MASK,
                        "severity_threshold": _SEVERITY,
                    },
                    needs=("category", "action"),
                    example="{category: harmful_self_harm, action: BLOCK}",
                ),
                "[{category: harmful_self_harm, action: BLOCK}]",
            ),
            "severity_threshold": _SEVERITY,
            **_SKIPPING,
        },
        either=("patterns", "blocked_words", "categories"),
    ),
    "block_code_execution": Guardrail(
        {
            "blocked_languages": _list(_text, "[python, bash]"),
            "action": _one_of("block", "mask"),
            "confidence_threshold": _number(0, 1),
            "detect_execution_intent": _boolean,
        },
    ),
    # Services, by their addresses.
    "generic_guardrail_api": Guardrail(
        {
            **_SERVICE,
            **_STREAMING,
            **_SKIPPING,
            "additional_provider_specific_params": _mapping,
            "unreachable_fallback": _one_of("fail_closed", "fail_open"),
            "fail_on_error": _boolean,
            "streaming_transform_mode": _one_of("block_only", "incremental_diff"),
        },
        needs=("api_base",),
    ),
    "presidio": Guardrail(
        {
            **_TIMEOUT,
            "presidio_analyzer_api_base": _address,
            "presidio_anonymizer_api_base": _address,
            "presidio_language": _text,
            "presidio_filter_scope": _one_of("input", "output", "both"),
            "output_parse_pii": _boolean,
            "pii_entities_config": _mapping_to(_BLOCK_OR_MASK, "{EMAIL_ADDRESS: MASK}"),
            "presidio_score_thresholds": _mapping_to(_number(0, 1), "{EMAIL_ADDRESS: 0.5}"),
            "presidio_entities_deny_list": _list(_text, "[DATE_TIME]"),
        },
        modes=("pre_call", "during_call", "post_call", "logging_only"),
        # without entities, LiteLLM lets everything pass while the service is away
        needs=("presidio_analyzer_api_base", "presidio_anonymizer_api_base", "pii_entities_config"),
    ),
    "openai_moderation": Guardrail(
        {
            **_SERVICE,
            **_STREAMING,
            **_SKIPPING,
            "model": _one_of("omni-moderation-latest", "text-moderation-latest"),
        },
        # without it, LiteLLM would look for the key of a model's provider
        needs=("api_key",),
    ),
    "lakera_v2": Guardrail(
        {
            **_SERVICE,
            **_SKIPPING,
            "project_id": _text,
            "payload": _boolean,
            "breakdown": _boolean,
            "dev_info": _boolean,
            "on_flagged": _one_of("block", "monitor"),
        },
        needs=("api_key",),
    ),
}

_CLOUD = "it needs the cloud's credentials, which LiteLLM would use for models as well"
_MODEL = "it asks a model, for which it has nobody's token"
_TOOLS = "it is about tool servers, which the gateway leaves closed"
_CODE = "it names code, and none of yours is in the gateway's image"
_UNTRIED = "nobody has tried it in this gateway"
_INSTEAD = "; take another one (generic_guardrail_api asks any service that speaks LiteLLM's guardrail API)"

REFUSED: Mapping[str, str] = {
    "hide-secrets": (
        "it needs a package that the gateway's image does not hold; take litellm_content_filter with the "
        "patterns aws_access_key, github_token, slack_token, generic_api_key"
    ),
    **dict.fromkeys(("bedrock", "model_armor"), _CLOUD + _INSTEAD),
    **dict.fromkeys(("llm_as_a_judge", "decision_model", "semantic_guard"), _MODEL + _INSTEAD),
    **dict.fromkeys(("mcp_security", "mcp_end_user_permission", "mcp_jwt_signer"), _TOOLS + "; leave it out"),
    "tool_policy": f"it reads its rules from a database of LiteLLM's own{_INSTEAD}",
    "tool_permission": f"it looks at chats alone, and messages and responses go past it{_INSTEAD}",
    "custom_code": _CODE + _INSTEAD,
    "lakera": "it is Lakera's old service; take lakera_v2",
}

# Parameters that somebody may well try, whatever the guardrail.
REFUSED_PARAMS: Mapping[str, str] = {
    "headers": "it may hold a key that the file would show; write the key as api_key",
    "extra_headers": "it sends what clients have in their headers to the guardrail; leave it out",
    "blocked_words_file": "the gateway's image holds no file of yours; write blocked_words",
    "presidio_ad_hoc_recognizers": (
        "the gateway's image holds no file of yours; let the analyzer have the recognizers"
    ),
    "image_model": f"{_MODEL}; leave it out",
    "custom_code": f"{_CODE}; leave it out",
    **dict.fromkeys(
        ("pattern_redaction_format", "keyword_redaction_tag"),
        "the LiteLLM of this kit does not apply it; leave it out",
    ),
}
_ENTRY = ("guardrail_name", "litellm_params", "guardrail_info")
_COMMON = ("guardrail", "mode", "default_on")
_EXAMPLE = "[{guardrail_name: NAME, litellm_params: {guardrail: litellm_content_filter, mode: pre_call, …}}]"


def faults_of(guardrails: object, keys: object = ()) -> list[str]:
    """What is wrong with a list of guardrails, each with its mend; no value is shown.

    ``keys``: the names that ``api_key`` may refer to.
    """
    if not isinstance(guardrails, list | tuple):
        return [f"is no list; write {_EXAMPLE}"]
    known = frozenset(str(key) for key in keys) if isinstance(keys, dict | list | tuple) else frozenset()
    found = [fault for guardrail in guardrails for fault in _faults(guardrail, known)]
    names = [str(one.get("guardrail_name")) for one in guardrails if isinstance(one, dict)]
    found += [
        f"holds {name} twice; give each its own name"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    return list(dict.fromkeys(found))


def _faults(guardrail: object, keys: frozenset[str]) -> Iterator[str]:
    """What is wrong with one guardrail."""
    if not isinstance(guardrail, dict):
        yield f"holds an entry that is no mapping; write {_EXAMPLE}"
        return
    name, params = guardrail.get("guardrail_name"), guardrail.get("litellm_params")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield (
            "holds an entry whose guardrail_name is none; write one of letters, digits and . _ -, "
            f"such as {_EXAMPLE}"
        )
        return
    if not isinstance(params, dict) or not all(isinstance(key, str) for key in params):
        yield f"holds {name}, whose litellm_params are no mapping; write {_EXAMPLE}"
        return
    if any(key not in _ENTRY for key in guardrail) or _mapping(guardrail.get("guardrail_info", {})):
        yield f"holds {name}, which has more than {', '.join(_ENTRY)}; move what it has into litellm_params"
    kind = params.get("guardrail")
    known = GUARDRAILS.get(kind) if isinstance(kind, str) else None
    if known is None:
        yield f"holds {name}, whose guardrail {_why_not(kind)}"
        return
    for fault in _faults_of_params(params, known, keys):
        yield f"holds {name}, {fault}"


def _why_not(kind: object) -> str:
    """Why there is no such guardrail."""
    if isinstance(kind, str) and kind in REFUSED:
        return f"is {kind}, which is refused: {REFUSED[kind]}"
    if isinstance(kind, str) and "." in kind:
        return f"is refused: {_CODE}{_INSTEAD}"
    near = difflib.get_close_matches(kind, GUARDRAILS, n=1) if isinstance(kind, str) else []
    if near:
        return f"is not known; did you mean {near[0]}?"
    return f"is none of those that the kit passes on, as {_UNTRIED}; write one of {', '.join(GUARDRAILS)}"


def _faults_of_params(params: Mapping[str, object], known: Guardrail, keys: frozenset[str]) -> Iterator[str]:
    missing = [need for need in known.needs if need not in params]
    if missing:
        yield f"which lacks {' and '.join(missing)}; write what is missing"
    if known.either and not set(known.either) & set(params):
        yield f"which has nothing to look for; write some of {', '.join(known.either)}"
    if (fault := _fault_of_mode(params.get("mode"), known.modes)) is not None:
        yield f"whose mode {fault}"
    if (fault := _boolean(params.get("default_on", False))) is not None:
        yield f"whose default_on {fault}"
    for name, value in params.items():
        if name in _COMMON:
            continue
        fault = _fault_of_param(name, value, known)
        if fault is not None:
            yield fault
        elif name != "api_key" and any(_REFERENCE in text for text in _texts(value)):
            yield f"whose {name} refers to a variable; only api_key may"
    if "api_key" in params:
        fault = _fault_of_key(params, keys)
        if fault is not None:
            yield f"whose api_key {fault}"


def _fault_of_param(name: str, value: object, known: Guardrail) -> str | None:
    if name in known.params:
        fault = known.params[name](value)
        return None if fault is None else f"whose {name} {fault}"
    if not re.fullmatch("[a-z][a-z0-9_]{0,63}", name):
        return "which has a parameter of a name that none has; write small letters, digits and _"
    if name in REFUSED_PARAMS:
        return f"whose {name} is refused: {REFUSED_PARAMS[name]}"
    near = difflib.get_close_matches(name, known.params, n=1)
    mend = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known.params)}"
    return f"which has {name}, which it does not take; {mend}"


def _fault_of_mode(mode: object, modes: tuple[str, ...]) -> str | None:
    asked = mode if isinstance(mode, list) else [mode]
    if (
        asked
        and all(isinstance(one, str) and one in modes for one in asked)
        and len(set(asked)) == len(asked)
    ):
        return None
    return f"is not when it can look; write one of {', '.join(modes)}, or a list of them"


def _fault_of_key(params: Mapping[str, object], keys: frozenset[str]) -> str | None:
    key, address = params["api_key"], params.get("api_base")
    mend = "write os.environ/GUARDRAIL_KEY, and GUARDRAIL_KEY with its value into litellm_oauth_callback_keys"
    if not isinstance(key, str) or not key.startswith(_REFERENCE):
        return f"is written out; {mend}"
    if key.removeprefix(_REFERENCE) not in keys:
        return f"refers to a variable that litellm_oauth_callback_keys does not hold; {mend}"
    if isinstance(address, str) and address.startswith("http://"):
        host = urlsplit(address).hostname
        if host not in _LOOPBACK:
            return "would go over the network unencrypted; write an api_base that begins with https://"
    return None


def _texts(value: object) -> Iterator[str]:
    """Each text in a value, and each name."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(name)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
