"""Spares requests work that LiteLLM repeats for each, with the same result. Changes no answer.

Proven on LiteLLM 1.106.2 with FastAPI 0.165.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from .deployments import ANTHROPIC

# What LiteLLM itself means to have first (`proxy.route_priority`), and the rest of the model routes.
_BUSY = frozenset(
    (
        "/chat/completions",
        "/v1/chat/completions",
        "/v1/messages",
        "/responses",
        "/v1/responses",
        "/health/liveliness",
    )
)
# Paths times patterns that LiteLLM compares; a path may hold an id.
_COMPARISONS = 20_000
_MODELS = 1000

LookUp = Callable[..., dict[str, Any]]
# Objects of one request that are gone by the time the collector would look at them, many times over.
_YOUNG = 20_000


def busy_routes(*routers: APIRouter) -> APIRouter:
    """The routes of most requests, to be placed before all others.

    LiteLLM sorts its list of routes for that, but this FastAPI keeps them inside their routers, and every
    request is compared with hundreds of paths, twice.
    """
    found = APIRouter()
    for route in _busy_ones(routers):
        # It stands in the OpenAPI document already.
        again = copy.copy(route)
        again.include_in_schema = False
        found.routes.append(again)
    return found


def _busy_ones(routers: Iterable[APIRouter]) -> Iterable[APIRoute]:
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.path in _BUSY:
                yield route


def remember_comparisons() -> None:
    """Have LiteLLM compile each pattern once to find out which kind of route a path is.

    Raises AttributeError where this LiteLLM has no such function.
    """
    from litellm.proxy.auth.route_checks import RouteChecks

    RouteChecks._route_matches_pattern = staticmethod(
        lru_cache(maxsize=_COMPARISONS)(RouteChecks._route_matches_pattern)
    )


def remember_model_info() -> None:
    """Have LiteLLM look up once what it knows of a model, or that it knows nothing of it.

    It does so some thirty times in each request. It counts the changes of its table, so that what is
    remembered is as old as the table at most. Raises AttributeError where this LiteLLM has no such functions.
    """
    from litellm import utils

    for name in ("get_model_info_helper", "_build_model_info"):
        setattr(utils, name, _remembering(getattr(utils, name), utils.get_model_cost_mutation_generation))


def _remembering(look_up: LookUp, generation: Callable[[], int]) -> LookUp:
    from litellm.exceptions import ModelNotMappedError

    @lru_cache(maxsize=_MODELS)
    def known(
        generation: int, model: str, provider: str | None, api_base: str | None
    ) -> dict[str, Any] | ModelNotMappedError:
        try:
            return look_up(model, provider, api_base)
        except ModelNotMappedError as unknown:
            return unknown

    def remembered(
        model: str,
        custom_llm_provider: str | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
    ) -> dict[str, Any]:
        anthropic = custom_llm_provider == ANTHROPIC or (
            custom_llm_provider is None and model.startswith(f"{ANTHROPIC}/")
        )
        if not anthropic or api_key is not None:
            # Some providers are asked for it.
            return look_up(model, custom_llm_provider, api_base, api_key)
        answer = known(generation(), model, custom_llm_provider, api_base)
        if isinstance(answer, ModelNotMappedError):
            # The one that is kept would keep what it was raised through.
            raise ModelNotMappedError(*answer.args)
        return dict(answer)

    return remembered


def collect_later() -> None:
    """Start the garbage collector, but seldom: reference counts free nearly all that a request leaves.

    What has been imported stays for good, so that it need not be looked at again (see ``serve``).
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    gc.enable()
