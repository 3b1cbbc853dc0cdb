# SPDX-License-Identifier: MIT
"""What the gateway would find wrong with a value, from the gateway's own tables."""

DOCUMENTATION = """
name: gateway_faults
author: LiteLLM OAuth kit maintainers (@litellm-oauth)
short_description: Check a value by the rules of the gateway itself
description:
  - Some values are checked by the role and by the gateway alike. Their rules are in the package that runs in
    the gateway, in modules that need nothing but Python's standard library. This lookup calls C(faults_of) of
    such a module.
options:
  _terms:
    description: Name of the module in C(src/litellm_oauth), then the values that its C(faults_of) takes.
    type: list
    elements: raw
    required: true
"""

EXAMPLES = """
- name: Show what is wrong with a route
  ansible.builtin.debug:
    msg: "{{ lookup('gateway_faults', 'open_routes', ['/key/generate'], wantlist=true) }}"
"""

RETURN = """
_raw:
  description: One sentence for each fault, with its mend. Empty if there is none.
  type: list
  elements: str
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

PACKAGE = Path(__file__).resolve().parents[1] / "src/litellm_oauth"


def _module(name: str) -> ModuleType:
    """By its path: the package's dependencies are not on the control node."""
    path = PACKAGE / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_gateway_faults_{name}", path)
    if not name.isidentifier() or not path.is_file() or spec is None or spec.loader is None:
        raise AnsibleLookupError(f"gateway_faults: {path} is no module of the gateway")
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up there
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _plain(value: Any) -> Any:
    """Without the types by which Ansible marks where a value comes from."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool):
        return bool(value)
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


class LookupModule(LookupBase):  # type: ignore[misc]  # Ansible ships no types
    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        name, *values = terms
        return [str(fault) for fault in _module(str(name)).faults_of(*map(_plain, values))]
