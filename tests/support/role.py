"""What the roles make of variables: configuration and description of the gateway. Nothing is deployed."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = [
    "docker_engine",
    "container_image",
    "service",
    "postgres",
    "redis",
    "sandbox",
    "litellm_oauth",
    "debug_tools",
]


@dataclass(frozen=True)
class Rendered:
    """``config`` is config.yaml as the gateway reads it; ``service`` what roles/service is told of it.

    ``debug_tools``: what that is told of these; ``leftover``: those of them that would be removed.
    """

    config: dict[str, Any]
    service: dict[str, Any]
    debug_tools: list[dict[str, Any]]
    leftover: list[str]


class RefusedError(Exception):
    """The variables are wrong; the message says how, one fault after another, with `` - `` between them."""


def rendered(
    variables: dict[str, Any], inventory: str = "inventories/sandbox", facts: dict[str, Any] | None = None
) -> Rendered:
    """Checks the variables as every playbook does. Raises RefusedError.

    ``facts``: what earlier tasks would have found out on the target.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for entry in ROOT.iterdir():
            if entry.name != "playbooks":
                (folder / entry.name).symlink_to(entry)
        (folder / "playbooks").mkdir()
        playbook = folder / "playbooks" / "render.yml"
        config = "lookup('ansible.builtin.template', template)"
        content = (
            f"{{{{ {{'config': {config}, 'service': litellm_oauth_service, "
            "'debug_tools': debug_tools_services, 'leftover': debug_tools_leftover} | to_json }}"
        )
        play = {
            "hosts": "gateway",
            "gather_facts": False,
            "vars_files": [str(ROOT / "playbooks/vars/validate.yml")],
            # for their variables; the tag keeps their tasks from being run
            "roles": [{"role": role, "tags": ["deploy"]} for role in ROLES],
            "pre_tasks": [{"import_tasks": str(ROOT / "playbooks/tasks/validate.yml"), "tags": ["render"]}],
            "post_tasks": [
                *([{"set_fact": facts, "tags": ["render"]}] if facts else []),
                {
                    "copy": {"content": content, "dest": str(folder / "out"), "mode": "0600"},
                    "vars": {"template": str(ROOT / "roles/litellm_oauth/templates/config.yaml.j2")},
                    "tags": ["render"],
                    "no_log": True,
                },
            ],
        }
        playbook.write_text(yaml.safe_dump([play], sort_keys=False))
        given = folder / "variables.json"
        given.write_text(json.dumps(variables))
        command = ["ansible-playbook", "-i", inventory, str(playbook), "--tags", "render", "-e", f"@{given}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            said = " ".join(done.stdout.split())
            raise RefusedError(said.rpartition("To mend in the variables: - ")[2].partition(" PLAY RECAP")[0])
        out = json.loads((folder / "out").read_text())
    return Rendered(**{**out, "config": yaml.safe_load(out["config"])})
