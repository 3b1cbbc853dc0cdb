"""What is remembered of LiteLLM's answers to itself is what it would say."""

from __future__ import annotations

import json

from support.running_gateway import in_the_image

MODEL_INFO = """
import json
import litellm
from litellm import utils
from litellm.exceptions import ModelNotMappedError
from litellm_oauth.gateway.speed import remember_model_info

asked = []
original = utils.get_model_info_helper
def counting(**named):
    asked.append(named["model"])
    return original(**named)
utils.get_model_info_helper = counting
remember_model_info()

def said(look_up, model, provider="anthropic"):
    try:
        return dict(look_up(model=model, custom_llm_provider=provider))
    except ModelNotMappedError as error:
        return str(error)

models = [name for name in litellm.model_cost if name.startswith("claude")][:20] + ["claude-unknown"]
same = all(said(utils.get_model_info_helper, one) == said(original, one) for one in models * 2)
once = len(asked) == len(models)
utils.get_model_info_helper(model=models[0], custom_llm_provider="anthropic")["key"] = "changed"
kept = said(utils.get_model_info_helper, models[0]) == said(original, models[0])
for model in ("claude-unknown", models[0]):
    litellm.register_model({model: {"litellm_provider": "anthropic", "mode": "chat", "max_tokens": 77}})
new = [said(utils.get_model_info_helper, model)["max_tokens"] for model in ("claude-unknown", models[0])]
asked.clear()
for _ in range(2):
    said(utils.get_model_info_helper, "gpt-4o", "openai")
print(json.dumps([same, once, kept, new, asked]))
"""


def test_what_litellm_knows_of_a_model_is_looked_up_once_until_it_changes() -> None:
    same, once, kept, new, others = json.loads(in_the_image("-c", MODEL_INFO)[-1])
    assert same
    assert once
    # Who changes what was found changes it for nobody else.
    assert kept
    assert new == [77, 77]
    # Some providers are asked for it each time.
    assert others == ["gpt-4o", "gpt-4o"]
