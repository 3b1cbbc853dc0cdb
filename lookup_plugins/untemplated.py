# SPDX-License-Identifier: MIT
"""A variable's value exactly as it was given, with no template in it evaluated."""

DOCUMENTATION = """
name: untemplated
author: LiteLLM OAuth kit maintainers (@litellm-oauth)
short_description: Read a variable as the text that was given
description:
  - What is given with C(-e) counts as a template and is evaluated on the control node. A login code comes
    from somebody else, who could put an expression into it. This lookup reads a variable as it is.
options:
  _terms:
    description: Names of variables.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
- name: Show a code as it was given
  ansible.builtin.debug:
    msg: "{{ lookup('untemplated', 'code') }}"
"""

RETURN = """
_raw:
  description: The values as text, V(null) for a variable that is not defined.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):  # type: ignore[misc]  # Ansible ships no types
    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[str | None]:
        self.set_options(var_options=variables, direct=kwargs)
        # The mapping evaluates what its own methods return; dict's do not.
        values = [dict.get(variables or {}, term) for term in terms]
        return [None if value is None else str(value) for value in values]
