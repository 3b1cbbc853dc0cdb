"""No gateway without one of the guardrails that its configuration names.

LiteLLM says in its log that it starts without a guardrail that it cannot make, and serves. Proven on LiteLLM
1.106.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .startup_failure import end_worker


def demand_guardrails() -> None:
    """Have this worker end where LiteLLM, as it reads config.yaml, leaves a guardrail out."""
    from litellm.proxy import proxy_server
    from litellm.proxy.guardrails.guardrail_registry import IN_MEMORY_GUARDRAIL_HANDLER

    make = proxy_server.init_guardrails_v2

    def make_all(all_guardrails: Sequence[Mapping[str, Any]], *arguments: Any, **options: Any) -> None:
        try:
            make(all_guardrails, *arguments, **options)
        except Exception as error:
            # LiteLLM's classes raise what they like; its text may hold a parameter's value.
            end_worker(f"LiteLLM cannot make the guardrails of config.yaml ({type(error).__name__})")
        made = {one["guardrail_name"] for one in IN_MEMORY_GUARDRAIL_HANDLER.IN_MEMORY_GUARDRAILS.values()}
        missing = [str(one.get("guardrail_name")) for one in all_guardrails]
        missing = [name for name in missing if name not in made]
        if missing:
            end_worker(
                f"LiteLLM cannot make the guardrail {', '.join(missing)} of config.yaml and would start "
                "without; its own line above says why"
            )

    proxy_server.init_guardrails_v2 = make_all
