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
import yaml
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


def names() -> list[str]:
    """The modules in library/, as ``run`` takes them."""
    return sorted(path.stem.removeprefix("litellm_oauth_") for path in (ROOT / "library").glob("*.py"))


def documented(name: str, block: str) -> Any:
    """The block DOCUMENTATION, EXAMPLES or RETURN of a module, read as Ansible reads it."""
    return yaml.safe_load(getattr(importlib.import_module(f"litellm_oauth_{name}"), block))


def declared(name: str) -> dict[str, Any]:
    """The arguments that a module gives to AnsibleModule: its options and their rules."""
    module = importlib.import_module(f"litellm_oauth_{name}")
    seen: dict[str, Any] = {}

    class Declared(Exception):  # noqa: N818 -- it ends main(), and tells of no error
        pass

    def declare(**arguments: Any) -> None:
        seen.update(arguments)
        raise Declared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AnsibleModule", declare)
        with pytest.raises(Declared):
            module.main()
    return seen
