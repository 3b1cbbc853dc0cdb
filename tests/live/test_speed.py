"""What is remembered of LiteLLM's answers to itself is what it would say."""

from __future__ import annotations

import json

from support.running_gateway import in_the_image

MODEL_INFO = """
import inspect
import json
import litellm
from litellm import utils
from litellm.exceptions import ModelNotMappedError
from litellm_oauth.gateway.speed import remember_model_info

NAMES = ("get_model_info_helper", "_build_model_info")
asked = []
originals = {name: getattr(utils, name) for name in NAMES}

def counting(original):
    def counted(model, *more):
        asked.append(model)
        return original(model, *more)
    return counted

def said(look_up, model, provider="anthropic"):
    try:
        return dict(look_up(model=model, custom_llm_provider=provider))
    except ModelNotMappedError as error:
        return str(error)

def parameters(function):
    return [(one.name, one.default) for one in inspect.signature(function).parameters.values()]

def cost():
    utils._invalidate_model_cost_lowercase_map()
    return litellm.completion_cost(model="anthropic/claude-sonnet-4-5", prompt="Hello", completion="Hello")

before = cost()
for name, original in originals.items():
    setattr(utils, name, counting(original))
remember_model_info()
result = {"cost": cost() == before > 0}
for name, original in originals.items():
    look_up = getattr(utils, name)
    models = [one for one in litellm.model_cost if one.startswith("claude")][:20] + ["claude-unknown"]
    asked.clear()
    result[name] = {
        "parameters": parameters(look_up) == parameters(original),
        "same": all(said(look_up, one) == said(original, one) for one in models * 2),
        # The second asks the first, once each.
        "once": max(map(asked.count, models)) <= 1 + NAMES.index(name),
    }
    look_up(model=models[0], custom_llm_provider="anthropic")["key"] = "changed"
    result[name]["kept"] = said(look_up, models[0]) == said(original, models[0])
    for model in ("claude-unknown", models[0]):
        litellm.register_model({model: {"litellm_provider": "anthropic", "mode": "chat", "max_tokens": 77}})
    new = [said(look_up, model)["max_tokens"] for model in ("claude-unknown", models[0])]
    result[name]["new"] = new == [77, 77]
    litellm.model_cost.pop("claude-unknown")
    utils._invalidate_model_cost_lowercase_map()
    asked.clear()
    for _ in range(2):
        said(look_up, "gpt-4o", "openai")
    result[name]["others"] = asked.count("gpt-4o") >= 2
print(json.dumps(result))
"""


def test_what_litellm_knows_of_a_model_is_looked_up_once_until_it_changes() -> None:
    result = json.loads(in_the_image("-c", MODEL_INFO)[-1])
    # An error on the way would cost the request its cost without a word.
    assert result.pop("cost")
    for name, found in result.items():
        # All arguments are understood, no change reaches another caller, and other providers are asked.
        assert found == dict.fromkeys(("parameters", "same", "once", "kept", "new", "others"), True), name
    assert len(result) == 2
