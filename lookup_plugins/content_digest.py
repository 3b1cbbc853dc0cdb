# SPDX-License-Identifier: MIT
"""Digest of files and folders on the control node: the tag of an image built from them."""

DOCUMENTATION = """
name: content_digest
author: LiteLLM OAuth kit maintainers (@litellm-oauth)
short_description: SHA-256 over the names, modes and contents of files
description:
  - Two trees with the same files give the same digest on every machine, so it can serve as an image's tag.
options:
  _terms:
    description: Files and folders, relative to the O(root) folder.
    type: list
    elements: str
    required: true
  root:
    description: Folder that the names are relative to.
    type: path
    required: true
  salt:
    description: Further text that the digest covers, such as build arguments.
    type: str
    default: ""
  length:
    description: Number of hexadecimal digits wanted.
    type: int
    default: 12
"""

EXAMPLES = """
- name: Show the tag that the gateway's image would get
  ansible.builtin.debug:
    msg: "{{ lookup('content_digest', 'Dockerfile', 'src', root=playbook_dir ~ '/..') }}"
"""

RETURN = """
_raw:
  description: One digest over all terms.
  type: list
  elements: str
"""

import hashlib
import stat
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


def _files(root: Path, term: str) -> list[Path]:
    path = root / term
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise AnsibleLookupError(f"content_digest: {path} is neither a file nor a folder")
    return [p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc"]


class LookupModule(LookupBase):  # type: ignore[misc]  # Ansible ships no types
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        root = Path(self.get_option("root")).resolve()
        digest = hashlib.sha256(str(self.get_option("salt")).encode())
        for file in sorted({f for term in terms for f in _files(root, term)}):
            executable = bool(file.stat().st_mode & stat.S_IXUSR)
            content = file.read_bytes()
            digest.update(f"\0{file.relative_to(root).as_posix()}\0{executable}\0{len(content)}\0".encode())
            digest.update(content)
        return [digest.hexdigest()[: self.get_option("length")]]
