# SPDX-License-Identifier: MIT
"""Asks a person on the terminal for one line, on the control node.

``ansible.builtin.pause`` takes input only without a time limit, and warns if there is no terminal. This one
ends after ``seconds``, and is skipped if there is no terminal.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ansible.errors import AnsiblePromptInterrupt, AnsiblePromptNoninteractive
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Enter, and Ctrl-D: the terminal is in raw mode, in which no key ends the input by itself.
_ENDS = (b"\r", b"\n", b"\x04")
# Set by ansible-runner, which AWX uses, and by CI services: their terminal has no reader.
_UNATTENDED = ("AWX_ISOLATED_DATA_DIR", "CI")


def _attended() -> bool:
    streams = (sys.stdin, sys.stdout)
    on_terminal = all(stream is not None and stream.isatty() for stream in streams)
    return on_terminal and not any(os.environ.get(name) for name in _UNATTENDED)


# Ansible's strategies load an action before they start the process that runs it. That process has no
# terminal, so that an action loaded there asks for nothing.
ATTENDED = _attended()


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Returns ``text``, the line without its end: empty after ``seconds``, Ctrl-C or Enter alone."""

    BYPASS_HOST_LOOP = True
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            {"prompt": {"type": "str", "required": True}, "seconds": {"type": "int", "required": True}}
        )
        if not ATTENDED:
            return result | {"skipped": True, "skip_reason": "There is no terminal."}
        try:
            typed: bytes = Display().prompt_until(
                options["prompt"], seconds=options["seconds"], complete_input=_ENDS
            )
        except AnsiblePromptNoninteractive:
            return result | {"skipped": True, "skip_reason": "The run is in the background."}
        except AnsiblePromptInterrupt:
            typed = b""
        return result | {"changed": False, "text": typed.decode(errors="replace").strip()}
