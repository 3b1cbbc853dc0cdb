"""Lists of the installed LiteLLM that tests compare the package's tables with, as JSON on stdout.

docker run --rm -i --entrypoint python IMAGE - < scripts/litellm_lists.py > tests/unit/litellm_lists.json

IMAGE is a gateway with the LiteLLM that requirements/gateway.in pins.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

# Where LiteLLM reads the variables of models' providers.
_PROVIDERS = (
    *("llms", "main.py", "utils.py", "__init__.py", "litellm_core_utils/get_llm_provider_logic.py"),
    *("images", "files", "batches", "fine_tuning", "rerank_api", "realtime_api", "responses", "assistants"),
    *("vector_stores", "ocr", "search", "videos", "containers", "embeddings", "rag", "google_genai"),
    *("proxy/pass_through_endpoints", "proxy/vertex_ai_endpoints"),
)
_READ = re.compile(
    r"""(?:get_secret(?:_str|_bool)?|getenv|environ\.get)\(\s*(?:secret_name\s*=\s*)?["']([A-Z][A-Z0-9_]+)["']"""
    r"""|environ\[["']([A-Z][A-Z0-9_]+)["']\]|key_env_vars=\(([^)]*)\)"""
)
_NAME = re.compile("[A-Z][A-Z0-9_]+")
# LiteLLM's lists of routes that are for others than users, and that of the APIs of models.
_MANAGEMENT = (
    *(
        "management_routes",
        "key_management_routes",
        "info_routes",
        "admin_viewer_routes",
        "self_managed_routes",
    ),
    *("spend_tracking_routes", "global_spend_tracking_routes", "master_key_only_routes"),
    *("org_admin_only_routes", "ui_routes", "mcp_management_routes", "agent_management_routes"),
)


def _variables(package: Path) -> set[str]:
    found: set[str] = set()
    for part in _PROVIDERS:
        path = package / part
        for file in [path] if path.is_file() else path.rglob("*.py"):
            for groups in _READ.findall(file.read_text(encoding="utf-8")):
                found.update(_NAME.findall(" ".join(groups)))
    for provider in json.loads((package / "llms/openai_like/providers.json").read_text()).values():
        found.add(provider["api_key_env"])
    from litellm import LlmProviders

    # as its pass-through routes make the name
    found.update(f"{provider.value.upper().replace('-', '_')}_API_KEY" for provider in LlmProviders)
    return found


def _routes() -> set[str]:
    from litellm.proxy import _lazy_features, proxy_server

    for feature in _lazy_features.LAZY_FEATURES:
        feature.register_fn(proxy_server.app, importlib.import_module(feature.module_path))
    found: set[str] = set()

    def walk(routes: list[Any]) -> None:
        for route in routes:
            if hasattr(route, "effective_candidates"):
                walk(route.effective_candidates())
            else:
                found.add(getattr(route, "path", None) or route.starlette_route.path)

    walk(proxy_server.app.router.routes)
    return found - {""}


def _guardrails() -> dict[str, list[str]]:
    """Each guardrail, and when it can look, as far as it says so."""
    from litellm.proxy.guardrails import guardrail_registry

    classes = guardrail_registry.guardrail_class_registry
    return {
        name: sorted(hook.value for hook in classes[name].get_supported_event_hooks() or ())
        if name in classes
        else []
        for name in sorted(guardrail_registry.guardrail_initializer_registry)
    }


def main() -> None:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm
    from litellm.proxy._types import ConfigGeneralSettings, LiteLLMRoutes
    from litellm.proxy.guardrails.guardrail_hooks.litellm_content_filter.patterns import PREBUILT_PATTERNS
    from litellm.types.guardrails import LitellmParams

    lists = LiteLLMRoutes.__members__
    package = Path(str(files("litellm")))
    found = {
        "version": version("litellm"),
        "routes": sorted(_routes()),
        "model_routes": sorted(set(lists["llm_api_routes"].value)),
        "management_routes": sorted({route for name in _MANAGEMENT for route in lists[name].value}),
        "provider_variables": sorted(_variables(package)),
        "callbacks": sorted(litellm._known_custom_logger_compatible_callbacks),
        "guardrails": _guardrails(),
        "guardrail_params": sorted(LitellmParams.model_fields),
        "guardrail_categories": sorted(
            file.stem for file in (package / "proxy/guardrails/content_filter_data/categories").iterdir()
        ),
        "guardrail_patterns": sorted(PREBUILT_PATTERNS),
        "general_settings": sorted(ConfigGeneralSettings.model_fields),
        # `litellm_settings` sets attributes of the module
        "litellm_settings": sorted(name for name in vars(litellm) if re.fullmatch("[a-z][a-z0-9_]*", name)),
    }
    json.dump(found, sys.stdout, indent=0)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
