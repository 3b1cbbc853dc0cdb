"""The models that the gateway offers, by the names that clients use, and LiteLLM's deployments behind them.

Proven on LiteLLM 1.106.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from litellm.proxy import proxy_server

from .deployments import ANTHROPIC, Deployment, ProviderOf, is_marked, named_upstream
from .errors import NoSuchModel

# Claude Code's way to ask for a long context; the name of the model is what stands before it.
_LONG_CONTEXT = "[1m]"
# How many names are remembered, and how long they may be. A client can send any.
_REMEMBERED, _LONGEST = 1000, 200


def has_database() -> bool:
    """Whether LiteLLM keeps keys, budgets, spend and models of its own in a database."""
    return proxy_server.prisma_client is not None


class Models:
    """Looks names up in LiteLLM's router. ``provider_of`` says which provider LiteLLM would speak to."""

    def __init__(self, provider_of: ProviderOf) -> None:
        self._provider_of = provider_of
        self._router: object = None
        self._known: dict[str | None, list[Deployment]] = {}

    def deployments(self, model: str | None = None) -> list[Deployment]:
        """All deployments that clients know by this name; by any name for None."""
        router = proxy_server.llm_router
        if router is None:
            return []
        if has_database() or router is not self._router or len(self._known) > _REMEMBERED:
            # Where LiteLLM has a database its models come and go.
            self._router, self._known = router, {}
        found = self._known.get(model)
        if found is None:
            listed = router.get_model_list(model_name=model) or ()
            # What a wildcard leads to comes as a copy that is called as it was asked for.
            found = [router.get_model_info(id=one["model_info"]["id"]) or one for one in listed]
            if model is None or len(model) <= _LONGEST:
                self._known[model] = found
        return found

    def listed(self, name: str) -> str:
        """The name in the gateway's list that is meant by ``name``. Raises NoSuchModel."""
        if self.deployments(name):
            return name
        if name.lower().endswith(_LONG_CONTEXT):
            plain = name[: -len(_LONG_CONTEXT)]
            if self.deployments(plain):
                return plain
        raise NoSuchModel(name)

    def names(self) -> list[str]:
        """All names, in the order of the configuration, without wildcards."""
        router = proxy_server.llm_router
        return (
            []
            if router is None
            else [name for name in dict.fromkeys(router.get_model_names()) if "*" not in name]
        )

    def marked(self, name: str) -> Deployment | None:
        """The deployment that takes the caller's own token; if a group has others as well, still that one."""
        return next((one for one in self.deployments(name) if is_marked(one)), None)

    def called_upstream(self, name: str) -> Deployment | None:
        """The marked deployment whose model the API knows by this name."""
        return next((one for one in self.all_marked() if named_upstream(one, "") == name), None)

    def with_operator_credentials(self, name: str) -> Deployment | None:
        """A deployment of Anthropic's API that goes with an API key or a workload's identity."""
        return next(
            (
                one
                for one in self.deployments(name)
                if not is_marked(one) and self._provider_of(one["litellm_params"]) == ANTHROPIC
            ),
            None,
        )

    def all_marked(self) -> list[Deployment]:
        """All deployments that take the caller's own token."""
        return [one for one in self.deployments() if is_marked(one)]


async def operator_credentials(deployment: Deployment) -> Mapping[str, str]:
    """Headers with the credentials that the operator gave to this deployment of Anthropic's API.

    Raises LiteLLM's AuthenticationError where a workload's identity is not accepted.
    """
    import litellm
    from litellm.llms.anthropic.common_utils import AnthropicModelInfo

    params = deployment["litellm_params"]
    key = params.get("api_key")
    if isinstance(key, str) and key.startswith("os.environ/"):
        key = litellm.get_secret(key)
    header: Mapping[str, str] | None = await AnthropicModelInfo.aget_auth_header(
        api_key=key,
        api_base=params.get("api_base"),
        litellm_params=params,
        allow_workload_identity=True,
    )
    return {} if header is None else header


def api_names(models: Models, names: Iterable[str]) -> dict[str, str]:
    """What the API calls each of these listed or API's own names."""
    found: dict[str, str] = {}
    for name in names:
        deployment = models.marked(name) or models.with_operator_credentials(name)
        found[name] = name if deployment is None else named_upstream(deployment, name)
    return found
