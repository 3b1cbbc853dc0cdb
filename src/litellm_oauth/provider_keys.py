"""Names of variables in the gateway's process: which are keys of models' providers, which are callbacks'.

LiteLLM picks a provider's key up by itself from a variable of a certain name, also for a request that another
key was meant for. So keys of models have names that LiteLLM does not know, and only what a callback reads is
set under its own name.

Standard library only, and no import of this package: the check of the Ansible variables loads this file too.
"""

from __future__ import annotations

import re

# A model's key NAME is the variable LITELLM_OAUTH_KEY_NAME inside the process.
MODEL_KEY_PREFIX = "LITELLM_OAUTH_KEY_"

# How the variables begin that the callbacks in `litellm_options` read, and those that guardrails refer to.
CALLBACK_PREFIXES = (
    *("ARIZE_", "BRAINTRUST_", "DD_", "GENERIC_LOGGER_", "GUARDRAIL_", "LANGFUSE_", "LANGSMITH_", "LOGFIRE_"),
    *("OPIK_", "OTEL_", "PHOENIX_", "POSTHOG_"),
)

# Keys of providers that do not end in _API_KEY, and what takes their place: accounts, files with keys.
_KEYS = frozenset(
    (
        *(
            "AGENTCORE_GATEWAY_TOKEN",
            "AIMLAPI_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "AWS_ACCESS_KEY_ID",
            "AWS_BEARER_TOKEN_BEDROCK",
        ),
        *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AZURE_AD_TOKEN"),
        *(
            "AZURE_CLIENT_SECRET",
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_PASSWORD",
            "CHATGPT_AUTH_FILE",
            "CHATGPT_TOKEN_DIR",
        ),
        *("COMETAPI_KEY", "DATABRICKS_CLIENT_SECRET", "DATAFORSEO_PASSWORD", "DATAROBOT_API_TOKEN"),
        *("DEFAULT_GOOGLE_APPLICATION_CREDENTIALS", "FIREWORKS_AI_TOKEN", "FRIENDLI_TOKEN"),
        *("GCS_PATH_SERVICE_ACCOUNT", "GIGACHAT_ACCESS_TOKEN", "GIGACHAT_CREDENTIALS"),
        *("GITHUB_COPILOT_ACCESS_TOKEN_FILE", "GITHUB_COPILOT_API_KEY_FILE", "GITHUB_COPILOT_TOKEN_DIR"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN", "JINA_AI_TOKEN", "REPLICATE_API_TOKEN"),
        *("RUNWAYML_API_SECRET", "SCW_SECRET_KEY", "SNOWFLAKE_JWT", "TOGETHER_AI_TOKEN"),
        *("VERCEL_OIDC_TOKEN", "VERTEXAI_CREDENTIALS", "VERTEX_CREDENTIALS", "VOYAGE_AI_TOKEN"),
        *(
            "WATSONX_APIKEY",
            "WATSONX_TOKEN",
            "WATSONX_ZENAPIKEY",
            "XAI_OAUTH_AUTH_FILE",
            "XAI_OAUTH_TOKEN_DIR",
        ),
    )
)
_NAME = re.compile("[A-Z][A-Z0-9_]*")


def is_provider_key(name: str) -> bool:
    """Whether LiteLLM takes the variable for a key of a model's provider."""
    if name.startswith((MODEL_KEY_PREFIX, *CALLBACK_PREFIXES)):
        return False
    return name in _KEYS or name.endswith("_API_KEY")


def fault_of_callback_key(name: object) -> str | None:
    """What is wrong with a name of ``callback_keys``, with the mend; None if nothing is."""
    prefixes = ", ".join(prefix + "…" for prefix in CALLBACK_PREFIXES)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"holds a name that is not of capital letters, digits and _; write one of {prefixes}"
    if is_provider_key(name):
        return (
            f"holds {name}, which LiteLLM would use for models that have no key of their own; move it to the "
            "models' keys (litellm_oauth_api_keys, LITELLM_OAUTH_API_KEYS)"
        )
    if not name.startswith(CALLBACK_PREFIXES):
        return f"holds {name}, which no callback or guardrail reads; write one of {prefixes}"
    return None


def faults_of(names: object, model_keys: object = ()) -> list[str]:
    """What is wrong with the names of ``callback_keys`` beside the names of the models' keys."""
    if not isinstance(names, dict | list | tuple):
        return ['is no mapping; write {LANGFUSE_SECRET_KEY: "…"}']
    found = [fault for name in names if (fault := fault_of_callback_key(name)) is not None]
    others = model_keys if isinstance(model_keys, dict | list | tuple) else ()
    found += [
        f"holds {n}, which the models' keys hold too; name it in one of both" for n in names if n in others
    ]
    return list(dict.fromkeys(found))
