"""Which calls get a user's token: only those to a deployment that the operator marked ``api_key: "oauth"``.

The mark counts where the operator wrote it, in the deployment, never in what a client sent. Where a client
sends an ``api_key`` or ``api_base`` of its own, LiteLLM builds a throw-away deployment (with
``original_model_id``); such a call is refused when it aims at a marked deployment or brings the mark along.
No call leads the credentials of any deployment to another provider than the operator's. The token's way is
pinned, too: provider anthropic, whatever the client says, and an address in ``allowed_api_bases``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Forbidden, InvalidInput

MARK = "oauth"
ANTHROPIC = "anthropic"
DEFAULT_API_BASE = "https://api.anthropic.com"

# What a body may hold that makes LiteLLM speak to another provider, with the deployment's credentials.
_OTHER_WAYS = ("azure", "deployment_id", "use_litellm_proxy", "use_xai_oauth")

Deployment = Mapping[str, Any]
FindDeployment = Callable[[str], Deployment | None]
ProviderOf = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a call with a user's token goes: the API's address, and the operator's deployment."""

    base: str
    deployment: Deployment

    @property
    def model(self) -> str:
        """What clients call the model."""
        return str(self.deployment.get("model_name", ""))

    @property
    def params(self) -> Mapping[str, Any]:
        """The ``litellm_params`` that the operator configured."""
        params: Mapping[str, Any] = self.deployment["litellm_params"]
        return params


def is_marked(deployment: Deployment | None) -> bool:
    """Whether the operator configured ``api_key: "oauth"`` for this deployment."""
    if deployment is None:
        return False
    params = deployment.get("litellm_params") or {}
    return bool(params.get("api_key") == MARK)


def destination_of(
    kwargs: Mapping[str, Any],
    find: FindDeployment,
    provider_of: ProviderOf,
    allowed_api_bases: Callable[[], Iterable[str]],
) -> Destination | None:
    """Where this call may carry a token to, or None where the call wants none.

    ``kwargs`` is what LiteLLM is about to send; ``allowed_api_bases`` is asked only where a token is wanted.
    Raises InvalidInput where a client sent credentials or an address of its own, Forbidden where the
    operator's deployment leads elsewhere than tokens may go.
    """
    info = kwargs.get("model_info") or {}
    identifier = info.get("id")
    deployment = find(identifier) if isinstance(identifier, str) else None
    wants = kwargs.get("api_key") == MARK
    if deployment is None or not is_marked(deployment):
        identifier = info.get("original_model_id")
        original = find(identifier) if isinstance(identifier, str) else None
        if wants or is_marked(original):
            raise InvalidInput(
                "This gateway chooses the credentials itself. Send neither api_key nor api_base."
            )
        operator_s = original or deployment
        if operator_s is not None:
            configured = operator_s["litellm_params"]
            _refuse_other_ways(kwargs, configured, provider_of(configured))
        return None
    if not wants:
        # Swapped already: LiteLLM runs the hook twice on some routes.
        return None
    base = _checked(kwargs, deployment["litellm_params"], provider_of, allowed_api_bases)
    return Destination(base, deployment)


def base_of(configured: Mapping[str, Any]) -> str:
    """The address of the API that the operator configured."""
    return str(configured.get("api_base") or configured.get("base_url") or DEFAULT_API_BASE).rstrip("/")


def address_of(
    configured: Mapping[str, Any],
    provider_of: ProviderOf,
    allowed_api_bases: Iterable[str],
) -> str:
    """Where the deployment with these ``litellm_params`` leads.

    Raises Forbidden where that is not a place for a token: another provider, or another address.
    """
    if provider_of(configured) != ANTHROPIC:
        raise Forbidden(
            "This model is set to api_key: oauth, but its provider is not anthropic, so no token is sent. "
            "Ask the operator to correct the model."
        )
    base = base_of(configured)
    if base not in {allowed.rstrip("/") for allowed in allowed_api_bases}:
        raise Forbidden(
            "This model's address is not in allowed_api_bases, so no token is sent there. "
            "Ask the operator to correct the model or to allow the address."
        )
    return base


def named_upstream(deployment: Deployment, model: str) -> str:
    """What the API calls the ``model`` that led to this deployment; with a wildcard, what the client does."""
    name = str(deployment["litellm_params"].get("model", "")).removeprefix(f"{ANTHROPIC}/")
    return model if "*" in name else name


def _checked(
    kwargs: Mapping[str, Any],
    configured: Mapping[str, Any],
    provider_of: ProviderOf,
    allowed_api_bases: Callable[[], Iterable[str]],
) -> str:
    base = address_of(configured, provider_of, allowed_api_bases())
    _refuse_other_ways(kwargs, configured, ANTHROPIC)
    sent = {str(kwargs[name]).rstrip("/") for name in ("api_base", "base_url") if kwargs.get(name)}
    if sent - {base}:
        raise InvalidInput("This gateway chooses the address itself. Send neither api_base nor base_url.")
    return base


def _refuse_other_ways(
    kwargs: Mapping[str, Any], configured: Mapping[str, Any], provider: str | None
) -> None:
    """Raises InvalidInput if the call would go to another provider than the operator configured."""
    ways = [name for name in _OTHER_WAYS if kwargs.get(name) and kwargs[name] != configured.get(name)]
    if ways or kwargs.get("custom_llm_provider") not in (None, "", provider):
        raise InvalidInput(
            "This gateway chooses the provider itself. Send none of custom_llm_provider, "
            f"{', '.join(_OTHER_WAYS)}."
        )
