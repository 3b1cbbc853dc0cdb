"""Which requests of Anthropic clients go to the API as they are, and to which API with whose credentials.

All others are LiteLLM's: what is not planned here goes through its router.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Forbidden, InvalidInput
from .batch_stream import BatchStream
from .deployments import Deployment, ProviderOf, address_of, base_of
from .errors import NoSuchModel
from .forward import Outgoing, Upstream
from .litellm_fields import asks_litellm, lost_in_the_router, models_of_fallbacks
from .models import Models, api_names, has_database, operator_credentials
from .paths import api_path
from .request_body import Body, renamed_in, requests_of
from .route_policy import COUNT_TOKENS, MESSAGES, PASS_THROUGH

# Calls of a model: all that an operator's credentials open.
_OF_A_MODEL = ("v1/messages", "v1/messages/count_tokens")
BATCHES = "v1/messages/batches"
# What asks a model, and has to say which.
_ASKING = (*_OF_A_MODEL, BATCHES, "v1/complete")
_MODELS = "v1/models/"
# Methods that bring the API nothing to read.
_TAKING = frozenset(("GET", "HEAD", "DELETE"))


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request of a client whose key is good. ``path`` and ``raw_path`` begin with a slash."""

    method: str
    path: str
    raw_path: bytes
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A request for the API, and where it goes."""

    outgoing: Outgoing
    upstream: Upstream


def asks_a_model(method: str, path: str) -> bool:
    """Whether a call of the API has to name a model, in a body of JSON. ``path``: below the API's address."""
    return method == "POST" and path in _ASKING


class AnthropicApi:
    """Plans requests.

    ``direct``: the models whose messages LiteLLM's router would only pass on. ``guarded``: whether LiteLLM
    has guardrails, so that nothing reaches a model past its router.
    """

    def __init__(
        self,
        models: Models,
        provider_of: ProviderOf,
        allowed_api_bases: tuple[str, ...],
        direct: frozenset[str],
        *,
        guarded: bool = False,
    ) -> None:
        self._models = models
        self._provider_of = provider_of
        self._allowed = allowed_api_bases
        self._direct = direct
        self._guarded = guarded

    async def message(self, incoming: Incoming, body: Body, model: str) -> Plan | None:
        """A message that LiteLLM's router would only pass on, None for others. ``model``: its listed name."""
        document = body.document or {}
        if (
            model in self._direct
            and not has_database()
            and not asks_litellm(document, incoming.headers.keys())
        ):
            return await self._of_a_model(incoming, MESSAGES[1:], body, model)
        lost = lost_in_the_router(document)
        if lost:
            elsewhere = (
                "."
                if self._guarded
                else ", or to /anthropic/v1/messages, where every field goes on as it came."
            )
            raise InvalidInput(
                f"This message goes through LiteLLM's router, which leaves out {', '.join(lost)[:200]}. "
                f"Send it without{elsewhere}"
            )
        return None

    def for_the_router(self, body: Body) -> dict[str, Any]:
        """A message with the API's names of the models in its tools, which LiteLLM hands on as they are."""
        document = dict(body.document or {})
        if isinstance(document.get("tools"), list):
            names = self._names({name: self.listed(name) for name in body.models})
            document["tools"] = renamed_in(document["tools"], names)
        return document

    async def count(self, incoming: Incoming, body: Body, model: str) -> Plan | None:
        """A count of tokens, made by the API itself; None for a model of another provider."""
        return await self._of_a_model(incoming, COUNT_TOKENS[1:], body, model)

    def is_guarded(self, method: str, path: str) -> bool:
        """Whether a call below ``/anthropic/`` is a message that guardrails have to see. ``path``: see below.

        Raises Forbidden for a call that would bring a model something past them. A count of tokens does not.
        """
        if not self._guarded or method in _TAKING or path == COUNT_TOKENS[1:]:
            return False
        if method == "POST" and path == MESSAGES[1:]:
            return True
        raise Forbidden(
            "This gateway has guardrails, which do not see this call of the API. "
            "Send messages one by one, to /v1/messages."
        )

    def named_in_list(self, name: str) -> str:
        """The name in the list for that name, or for the one that the API knows the model by.

        Raises NoSuchModel.
        """
        try:
            return self._models.listed(name)
        except NoSuchModel:
            deployment = self._models.called_upstream(name)
            if deployment is None:
                raise
            return str(deployment["model_name"])

    async def pass_through(
        self, incoming: Incoming, body: Body | AsyncIterable[bytes], path: str
    ) -> Plan | None:
        """Any call below ``/anthropic/``; None for a message to a model of another provider.

        ``path``: below the API's address. One that names no model goes where all models are, if that is one
        place. Raises InvalidInput, NoSuchModel, Forbidden.
        """
        asks = asks_a_model(incoming.method, path)
        models = body.models if isinstance(body, Body) else frozenset()
        if asks and not models:
            raise InvalidInput("The body names no model. Send it as JSON, with model.")
        if asks and path in _OF_A_MODEL and isinstance(body, Body) and body.model is not None:
            return await self._of_a_model(incoming, path, body, self.listed(body.model))
        places = self._places(models)
        places = places or {base_of(one["litellm_params"]) for one in self._models.all_marked()}
        deployment = self._one_at(places)
        content: bytes | AsyncIterable[bytes] = body if not isinstance(body, Body) else self._content(body)
        return Plan(
            self._outgoing(incoming, self._translated(path), content),
            Upstream(address_of(deployment["litellm_params"], self._provider_of, self._allowed)),
        )

    async def batch(self, incoming: Incoming, batch: BatchStream, path: str) -> Plan:
        """A batch of messages, which goes on as it comes, to the place of the first model that it names.

        Raises InvalidInput, NoSuchModel, Forbidden, BodyTooLarge, TooManyBodies and ClientGone, also while it
        goes on.
        """
        places: set[str] = set()

        def named(body: Body) -> Mapping[str, str]:
            models = body.models
            places.update(self._places(models))
            if places:
                self._one_at(places)
            document = body.document or {}
            for holder in (document, *requests_of(document)):
                for name in models_of_fallbacks(holder):
                    self.listed(name)
            return self._names({model: self.listed(model) for model in models})

        await batch.begin(named)
        deployment = self._one_at(places)
        return Plan(
            self._outgoing(incoming, path, batch),
            Upstream(address_of(deployment["litellm_params"], self._provider_of, self._allowed)),
        )

    def path_of(self, incoming: Incoming) -> str:
        """What follows ``/anthropic/``, judged. Raises InvalidInput."""
        return api_path(incoming.raw_path.removeprefix(PASS_THROUGH.encode()))

    async def _of_a_model(self, incoming: Incoming, path: str, body: Body, model: str) -> Plan | None:
        for name in (*(body.models - {body.model}), *models_of_fallbacks(body.document or {})):
            self.listed(name)
        outgoing = self._outgoing(incoming, path, self._content(body, model))
        deployment = self._marked(model)
        if deployment is not None:
            base = address_of(deployment["litellm_params"], self._provider_of, self._allowed)
            # Where LiteLLM has a database, a key may have a budget, and LiteLLM sees nothing of this request.
            fallback = None if has_database() else deployment.get("model_name")
            return Plan(outgoing, Upstream(base, fallback=fallback))
        own = self._models.with_operator_credentials(model)
        if own is None or has_database():
            return None
        return Plan(outgoing, Upstream(base_of(own["litellm_params"]), await operator_credentials(own)))

    def listed(self, name: str) -> str:
        """The name in the list; names that the API knows a listed model by are good as well.

        Raises NoSuchModel.
        """
        try:
            return self._models.listed(name)
        except NoSuchModel:
            if self._models.called_upstream(name) is None:
                raise
            return name

    def _marked(self, name: str) -> Deployment | None:
        return self._models.marked(name) or self._models.called_upstream(name)

    def _places(self, models: Iterable[str]) -> set[str]:
        """Where the models are that take the caller's own token. Raises NoSuchModel, Forbidden for others."""
        deployments = [self._marked(self.listed(model)) for model in models]
        found = {base_of(one["litellm_params"]) for one in deployments if one is not None}
        if None in deployments:
            raise Forbidden(
                "The credentials of this model are the operator's. They open messages and count_tokens; "
                "other calls of the API go with the caller's own token, for models that take it."
            )
        return found

    def _one_at(self, places: set[str]) -> Deployment:
        if len(places) > 1:
            raise InvalidInput("The models of one request must have the same API.")
        for one in self._models.all_marked():
            if base_of(one["litellm_params"]) in places:
                return one
        raise Forbidden(
            "No model of this gateway takes the caller's own token, so this call of the API is closed."
        )

    def _content(self, body: Body, model: str | None = None) -> bytes:
        """The body with the API's names. ``model``: the listed name of the model at the top level."""
        names = {name: self.listed(name) for name in body.models}
        if model is not None and body.model is not None:
            names[body.model] = model
        return body.named(self._names(names))

    def _names(self, names: Mapping[str, str]) -> Mapping[str, str]:
        """The API's names for what was sent. ``names``: the listed ones."""
        known = api_names(self._models, names.values())
        return {sent: known[listed] for sent, listed in names.items()}

    def _translated(self, path: str) -> str:
        """``v1/models/NAME`` by the API's name of that model."""
        if not path.startswith(_MODELS):
            return path
        name = path.removeprefix(_MODELS)
        deployment = self._models.marked(name)
        return path if deployment is None else _MODELS + api_names(self._models, [name])[name]

    @staticmethod
    def _outgoing(incoming: Incoming, path: str, content: bytes | AsyncIterable[bytes]) -> Outgoing:
        method = "GET" if incoming.method == "HEAD" else incoming.method
        return Outgoing(method, path, incoming.query, incoming.headers, content)
