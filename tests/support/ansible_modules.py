"""The modules in library/, run in this process as Ansible runs them: options in, one JSON object out."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[2]
Result = dict[str, Any]

# Where Ansible finds them through ansible.cfg.
sys.path.insert(0, str(ROOT / "library"))
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))


def run(name: str, *, check: bool = False, **options: Any) -> Result:
    """What ``litellm_oauth_<name>`` returns; ``options`` are the task's."""
    arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": True}
    output = io.StringIO()
    main = importlib.import_module(f"litellm_oauth_{name}").main
    with patch_module_args(arguments), contextlib.redirect_stdout(output), pytest.raises(SystemExit) as end:
        main()
    result: Result = json.loads(output.getvalue())
    assert bool(end.value.code) == bool(result.get("failed")), result
    assert "Traceback" not in output.getvalue()
    return result
