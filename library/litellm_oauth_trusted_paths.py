#!/usr/bin/python
# SPDX-License-Identifier: MIT

from __future__ import annotations

DOCUMENTATION = r"""
module: litellm_oauth_trusted_paths
short_description: Refuse files that other accounts can change
description:
  - Checks that nobody but root and O(account) owns or can write the named files and folders, what is in them, and each folder
    on the way to them from C(/). What such an account could change, it could have root or O(account) run.
  - A file that its group can write is refused if the group has other members. An access control list counts as well.
  - Symbolic links are followed; the folder that a link is in is checked, too. What does not exist is passed over, once the
    folders that exist on the way to it are checked.
  - In a folder with the sticky bit, such as C(/tmp), others may write, provided that the next path in it is not theirs.
  - It changes nothing. Every refused path is named with its owner and mode, and with the command that mends it.
options:
  account:
    description: The account that reads or runs the files.
    type: str
    required: true
  trees:
    description: Files, and folders with all that is in them. If a file names its interpreter in C(#!), that is checked as well.
    type: list
    elements: str
    default: []
  folders:
    description: Folders that others must not be able to add a file to. What is in them is not checked.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: It changes nothing in any mode.
  diff_mode:
    support: none
    description: It changes nothing.
  idempotent:
    support: full
    description: It changes nothing.
author:
  - The LiteLLM OAuth kit authors (@litellm-oauth)
seealso:
  - module: litellm_oauth_token
"""

EXAMPLES = r"""
- name: Refuse playbooks that other accounts can change
  litellm_oauth_trusted_paths:
    account: deploy
    trees: [/opt/kit/playbooks, /opt/kit/.venv]
    folders: [/opt/kit]
"""

RETURN = r"""
checked:
  description: How many files, folders and links were looked at.
  returned: always
  type: int
  sample: 1204
refused:
  description: The paths that other accounts can change.
  returned: always
  type: list
  elements: str
  sample: [/opt/kit/playbooks/site.yml]
msg:
  description: What was found and how to mend it, in one message.
  returned: always
  type: str
  sample: Other accounts than root and deploy can change none of the 1204 paths.
"""

import grp
import os
import pwd
import shlex
import stat
import struct
from contextlib import suppress
from typing import Any, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

from ansible.module_utils.basic import AnsibleModule

OWNER, GROUP, OTHERS, ACL = "owner", "group", "others", "acl"
# As many as Linux follows.
MOST_LINKS = 40
MOST_LINES = 10
# The entries of an access control list: acl(5), and linux/posix_acl_xattr.h for the layout.
ACL_ATTRIBUTE = "system.posix_acl_access"
ACL_VERSION, ACL_USER, ACL_GROUP, ACL_WRITE = 2, 0x02, 0x08, 0x02


class Refusal(NamedTuple):
    """``tree`` is the folder whose content it is part of, None for a folder on the way."""

    path: str
    status: os.stat_result
    reasons: FrozenSet[str]
    tree: Optional[str]


class Members:
    """Who is in which group, by uid."""

    def __init__(self) -> None:
        self._primary: Dict[int, Set[int]] = {}
        for one in pwd.getpwall():
            self._primary.setdefault(one.pw_gid, set()).add(one.pw_uid)
        self._known: Dict[int, Set[int]] = {}

    def of(self, gid: int) -> Set[int]:
        if gid not in self._known:
            found = set(self._primary.get(gid, set()))
            try:
                names = grp.getgrgid(gid).gr_mem
            except KeyError:
                names = []
            for name in names:
                with suppress(KeyError):  # the list may name an account that no longer exists
                    found.add(pwd.getpwnam(name).pw_uid)
            self._known[gid] = found
        return self._known[gid]


class Inspection:
    """Looks at paths once each and keeps what is refused."""

    def __init__(self, trusted: Set[int], members: Members) -> None:
        self.refused: List[Refusal] = []
        self.checked = 0
        self._trusted = trusted
        self._members = members
        # How strictly each path was looked at: a folder with the sticky bit may be on the way, but no tree.
        self._seen: Dict[str, bool] = {}
        self._walked: Set[str] = set()
        self._refused: Set[str] = set()

    def folder(self, path: str) -> None:
        self._way(path)

    def tree(self, path: str) -> None:
        pending = [path]
        while pending:
            top = self._way(pending.pop())
            if top is not None:
                pending += self._interpreter(top)
                pending += self._walk(top)

    def _walk(self, top: str) -> List[str]:
        """Look at everything below; returns the links, which lead elsewhere."""
        links: List[str] = []
        folders = [top]
        while folders:
            folder = folders.pop()
            if folder in self._walked or not os.path.isdir(folder):
                continue
            self._walked.add(folder)
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed since the folder was read
                    self._look(entry.path, status, tree=top)
                    if stat.S_ISLNK(status.st_mode):
                        links.append(entry.path)
                    elif stat.S_ISDIR(status.st_mode):
                        folders.append(entry.path)
        return links

    def _way(self, path: str) -> Optional[str]:
        """Look at every folder and link from / to the path and at the path; returns where it leads, if anywhere."""
        current, links = "/", 0
        self._look(current, os.lstat(current), on_the_way=True)
        names = _names(path)
        while names:
            name = names.pop()
            if name == "..":
                current = os.path.dirname(current)
                continue
            entry = os.path.join(current, name)
            try:
                status = os.lstat(entry)
            except (FileNotFoundError, NotADirectoryError):
                return None
            if not stat.S_ISLNK(status.st_mode):
                current = entry
                self._look(entry, status, on_the_way=bool(names))
                continue
            self._look(entry, status)
            links += 1
            if links > MOST_LINKS:
                return None
            target = os.readlink(entry)
            current = "/" if target.startswith("/") else current
            names += _names(target)
        return current

    def _interpreter(self, file: str) -> List[str]:
        if not os.path.isfile(file):
            return []
        with open(file, "rb") as opened:
            line = opened.readline(256)
        words = line[2:].split() if line.startswith(b"#!") else []
        return [os.fsdecode(words[0])] if words and words[0].startswith(b"/") else []

    def _look(
        self, path: str, status: os.stat_result, *, tree: Optional[str] = None, on_the_way: bool = False
    ) -> None:
        strict = not on_the_way
        if path in self._seen and (self._seen[path] or not strict):
            return
        self.checked += path not in self._seen
        self._seen[path] = strict
        reasons = self._reasons(path, status, on_the_way)
        if reasons and path not in self._refused:
            self._refused.add(path)
            self.refused.append(Refusal(path, status, reasons, tree))

    def _reasons(self, path: str, status: os.stat_result, on_the_way: bool) -> FrozenSet[str]:
        reasons = set()
        if status.st_uid not in self._trusted:
            reasons.add(OWNER)
        mode = status.st_mode
        # A link's own mode means nothing, and what is written to a device such as /dev/null stays in no file.
        harmless = stat.S_ISLNK(mode) or stat.S_ISCHR(mode)
        # There, only the owner of an entry can replace it.
        sticky = on_the_way and stat.S_ISDIR(mode) and mode & stat.S_ISVTX
        if not harmless and not sticky:
            if mode & stat.S_IWOTH:
                reasons.add(OTHERS)
            # With an access control list these bits are its mask: without them it lets nobody write.
            if mode & stat.S_IWGRP:
                acl = _writers(path)
                if acl is None:
                    if self._others({status.st_gid}):
                        reasons.add(GROUP)
                elif acl[0] - self._trusted or self._others(acl[1]):
                    reasons.add(ACL)
                elif self._others({status.st_gid}):
                    reasons.add(GROUP)
        return frozenset(reasons)

    def _others(self, groups: Iterable[int]) -> bool:
        return any(self._members.of(gid) - self._trusted for gid in groups)


def _names(path: str) -> List[str]:
    """The parts of a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _writers(path: str) -> Optional[Tuple[Set[int], Set[int]]]:
    """The users and groups that an access control list names and lets write; None if there is no list."""
    try:
        content = os.getxattr(path, ACL_ATTRIBUTE)
    except (OSError, AttributeError):
        return None
    if len(content) < 4 or struct.unpack_from("<I", content)[0] != ACL_VERSION:
        return None
    entries = list(struct.iter_unpack("<HHI", content[4 : 4 + (len(content) - 4) // 8 * 8]))
    users = {name for tag, permissions, name in entries if tag == ACL_USER and permissions & ACL_WRITE}
    groups = {name for tag, permissions, name in entries if tag == ACL_GROUP and permissions & ACL_WRITE}
    return users, groups


def describe(refused: List[Refusal]) -> List[str]:
    """A line for each path, or for all of a tree that one command mends."""
    together: Dict[Tuple[str, FrozenSet[str]], List[Refusal]] = {}
    for one in refused:
        together.setdefault((one.tree or one.path, one.reasons), []).append(one)
    lines = []
    for (tree, reasons), found in together.items():
        first = found[0]
        more = f" and {len(found) - 1} more below {shown(tree)}" if len(found) > 1 else ""
        recursive, path = ("-R ", tree) if more else ("", first.path)
        lines.append(f"{shown(first.path)} ({facts(first.status)}){more}: {mend(reasons, recursive, path)}")
    return lines


def facts(status: os.stat_result) -> str:
    return f"owner {user_name(status.st_uid)}, group {group_name(status.st_gid)}, mode {stat.S_IMODE(status.st_mode):04o}"


def mend(reasons: FrozenSet[str], recursive: str, path: str) -> str:
    name = shlex.quote(shown(path))
    letters = ("g" if GROUP in reasons else "") + ("o" if OTHERS in reasons else "")
    commands = []
    if OWNER in reasons:
        commands.append(f"chown -h {recursive}root {name}")
    if ACL in reasons:
        commands.append(f"setfacl {recursive}-b {name}")
    if letters:
        commands.append(f"chmod {recursive}{letters}-w {name}")
    return " && ".join(commands)


def shown(path: str) -> str:
    """The path as text, also if its name is not valid UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "account": {"type": "str", "required": True},
            "trees": {"type": "list", "elements": "str", "default": []},
            "folders": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    account = module.params["account"]
    paths = module.params["folders"] + module.params["trees"]
    relative = [path for path in paths if not path.startswith("/")]
    if relative:
        module.fail_json(msg=f"Give absolute paths, not {', '.join(relative)}.", checked=0, refused=[])
    try:
        uid = pwd.getpwnam(account).pw_uid
    except KeyError:
        module.fail_json(msg=f"This host has no account {account}.", checked=0, refused=[])
    inspection = Inspection({0, uid}, Members())
    try:
        for path in module.params["folders"]:
            inspection.folder(path)
        for path in module.params["trees"]:
            inspection.tree(path)
    except OSError as error:
        module.fail_json(
            msg=f"{shown(str(error.filename))} cannot be read ({error.strerror}); run this as root.",
            checked=inspection.checked,
            refused=[],
        )
    trusted = "root" if uid == 0 else f"root and {account}"
    result: Dict[str, Any] = {
        "changed": False,
        "checked": inspection.checked,
        "refused": [shown(one.path) for one in inspection.refused],
    }
    if not inspection.refused:
        none = f"Other accounts than {trusted} can change none of the {inspection.checked} paths."
        module.exit_json(msg=none, **result)
    lines = describe(inspection.refused)
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    found = "\n".join(f"- {line}" for line in lines[:MOST_LINES] + more)
    module.fail_json(
        msg=f"Nothing was done: other accounts than {trusted} can change what is run. Mend this:\n{found}",
        **result,
    )


if __name__ == "__main__":
    main()
