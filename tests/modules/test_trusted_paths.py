"""Files that other accounts can change are refused, wherever they are; the command that is shown mends it."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ansible_modules import Result, run

ACCOUNT, OTHER = "daemon", "nobody"
OWN_GROUP, SHARED_GROUP = "daemon", "nogroup"  # the second is the primary group of several accounts
NO_GROUP = 54_321  # nobody is in it

Evil = Callable[[Path], Path]


@pytest.fixture
def root() -> Iterator[Path]:
    """A tree of root's: ``kit/playbooks/site.yml`` and what the tests add. Not in pytest's own folder, whose
    parents are the person's who runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="it's trusted-"))
    folder.chmod(0o755)
    site = folder / "kit/playbooks/site.yml"
    site.parent.mkdir(parents=True)
    site.write_text("---\n")
    for path in (folder / "kit", site.parent, site):
        path.chmod(path.stat().st_mode & ~0o022)
    yield folder
    shutil.rmtree(folder)


def inspect(root: Path, **options: Any) -> Result:
    given = {"account": ACCOUNT, "trees": [str(root / "kit/playbooks")], "folders": [str(root / "kit")]}
    return run("trusted_paths", **{**given, **options})


def acl(path: Path, tag: int, name: str | int, permissions: int = 7, mask: int = 7) -> None:
    """Give one more user (tag 2) or group (tag 8) rights, as setfacl does."""
    uid = (
        name
        if isinstance(name, int)
        else (pwd.getpwnam(name).pw_uid if tag == 2 else grp.getgrnam(name).gr_gid)
    )
    entries = [(1, 7, -1), (4, 5, -1), (16, mask, -1), (32, 5, -1), (tag, permissions, uid)]
    packed = b"".join(struct.pack("<HHi", *entry) for entry in sorted(entries))
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + packed)


def site(root: Path) -> Path:
    return root / "kit/playbooks/site.yml"


def file_of_another(root: Path) -> Path:
    shutil.chown(site(root), OTHER)
    return site(root)


def file_for_all(root: Path) -> Path:
    site(root).chmod(0o646)
    return site(root)


def file_of_a_group(root: Path) -> Path:
    shutil.chown(site(root), group=SHARED_GROUP)
    site(root).chmod(0o664)
    return site(root)


def folder_for_all(root: Path) -> Path:
    (root / "kit/playbooks").chmod(0o757)
    return root / "kit/playbooks"


def sticky_tree(root: Path) -> Path:
    """Others can add a file."""
    (root / "kit/playbooks").chmod(0o1777)
    return root / "kit/playbooks"


def sticky_folder(root: Path) -> Path:
    (root / "kit").chmod(0o1777)
    return root / "kit"


def parent_for_all(root: Path) -> Path:
    root.chmod(0o777)
    return root


def parent_of_another(root: Path) -> Path:
    shutil.chown(root, OTHER)
    return root


def in_a_sticky_parent(root: Path) -> Path:
    """As in /tmp: what another has put there is the other's."""
    root.chmod(0o1777)
    shutil.chown(root / "kit", OTHER)
    return root / "kit"


def target_of_a_link(root: Path) -> Path:
    target = root / "elsewhere/tasks.yml"
    target.parent.mkdir()
    target.touch()
    target.chmod(0o666)
    (root / "kit/playbooks/link.yml").symlink_to("../../elsewhere/tasks.yml")
    return target


def folder_of_a_target(root: Path) -> Path:
    target_of_a_link(root).chmod(0o644)
    (root / "elsewhere").chmod(0o777)
    return root / "elsewhere"


def in_a_folder_behind_a_link(root: Path) -> Path:
    target = target_of_a_link(root)
    (root / "kit/playbooks/link.yml").unlink()
    (root / "kit/playbooks/shared").symlink_to(target.parent)
    return target


def folder_of_a_link(root: Path) -> Path:
    """What it leads to is fine, but others could have it lead elsewhere."""
    (root / "real").mkdir()
    (root / "real/playbooks").mkdir()
    shutil.rmtree(root / "kit/playbooks")
    (root / "links").mkdir()
    (root / "links/playbooks").symlink_to(root / "real/playbooks")
    (root / "kit/playbooks").symlink_to("../links/playbooks")
    (root / "links").chmod(0o777)
    return root / "links"


def link_of_another(root: Path) -> Path:
    link = root / "kit/playbooks/link.yml"
    link.symlink_to("site.yml")
    os.lchown(link, pwd.getpwnam(OTHER).pw_uid, -1)
    return link


def link_of_another_on_the_way(root: Path) -> Path:
    root.chmod(0o1777)
    (root / "kit").rename(root / "real")
    (root / "kit").symlink_to("real")
    os.lchown(root / "kit", pwd.getpwnam(OTHER).pw_uid, -1)
    return root / "kit"


def access_list_of_a_user(root: Path) -> Path:
    acl(site(root), 2, OTHER)
    return site(root)


def access_list_of_a_group(root: Path) -> Path:
    acl(site(root), 8, SHARED_GROUP)
    return site(root)


EVIL: list[tuple[Evil, str]] = [
    (file_of_another, "chown -h root {path}"),
    (file_for_all, "chmod o-w {path}"),
    (file_of_a_group, "chmod g-w {path}"),
    (folder_for_all, "chmod o-w {path}"),
    (sticky_tree, "chmod o-w {path}"),
    (sticky_folder, "chmod o-w {path}"),
    (parent_for_all, "chmod o-w {path}"),
    (parent_of_another, "chown -h root {path}"),
    (in_a_sticky_parent, "chown -h root {path}"),
    (target_of_a_link, "chmod o-w {path}"),
    (folder_of_a_target, "chmod o-w {path}"),
    (in_a_folder_behind_a_link, "chmod o-w {path}"),
    (folder_of_a_link, "chmod o-w {path}"),
    (link_of_another, "chown -h root {path}"),
    (link_of_another_on_the_way, "chown -h root {path}"),
    (access_list_of_a_user, "setfacl -b {path}"),
    (access_list_of_a_group, "setfacl -b {path}"),
]


@pytest.mark.parametrize(("evil", "command"), EVIL, ids=[evil.__name__ for evil, _ in EVIL])
def test_what_others_can_change_is_refused_until_the_command_mends_it(
    root: Path, evil: Evil, command: str
) -> None:
    assert not inspect(root).get("failed")
    path = evil(root)
    result = inspect(root)
    assert result["failed"]
    assert result["refused"] == [str(path)]
    status = path.lstat()
    quoted = "'" + str(path).replace("'", "'\"'\"'") + "'"
    mend = command.format(path=quoted)
    facts = f"owner {pwd.getpwuid(status.st_uid).pw_name}, group {grp.getgrgid(status.st_gid).gr_name}, "
    assert f"- {path} ({facts}mode {status.st_mode & 0o7777:04o}): {mend}" in result["msg"]
    if shutil.which(mend.split()[0]):
        subprocess.run(["sh", "-c", mend], check=True)
    else:  # setfacl is not installed everywhere
        os.removexattr(path, "system.posix_acl_access")
    assert not inspect(root).get("failed")


def test_an_interpreter_counts_as_well(root: Path) -> None:
    program = root / "kit/program"
    with tempfile.TemporaryDirectory(prefix="trusted-") as folder:  # a path that #! can say: without a space
        interpreter = Path(folder) / "python"
        interpreter.touch()
        program.write_text(f"#! {interpreter} -I\n")
        assert not inspect(root, trees=[str(program)]).get("failed")
        interpreter.chmod(0o777)
        assert inspect(root, trees=[str(program)])["refused"] == [str(interpreter)]


def test_a_path_that_is_missing_is_passed_over_but_not_the_folder_that_it_could_be_made_in(
    root: Path,
) -> None:
    missing = str(root / "kit/group_vars/all/main.yml")
    assert not inspect(root, trees=[missing], folders=[]).get("failed")
    parent_for_all(root)
    assert inspect(root, trees=[missing], folders=[])["refused"] == [str(root)]


def own_file(root: Path) -> None:
    shutil.chown(site(root), ACCOUNT)


def own_group(root: Path) -> None:
    shutil.chown(site(root), group=OWN_GROUP)
    site(root).chmod(0o664)


def group_of_nobody(root: Path) -> None:
    os.chown(site(root), -1, NO_GROUP)
    site(root).chmod(0o664)


def sticky_parent(root: Path) -> None:
    root.chmod(0o1777)


def access_list_for_reading(root: Path) -> None:
    acl(site(root), 2, OTHER, permissions=5)


def access_list_under_a_mask(root: Path) -> None:
    acl(site(root), 2, OTHER, mask=5)


def access_list_of_the_account(root: Path) -> None:
    acl(site(root), 2, ACCOUNT)


def link_to_a_device(root: Path) -> None:
    (root / "kit/playbooks/null").symlink_to("/dev/null")


def links_in_a_circle(root: Path) -> None:
    (root / "kit/playbooks/self").symlink_to("self")
    (root / "kit/playbooks/up").symlink_to("../playbooks")


@pytest.mark.parametrize(
    "harmless",
    [
        own_file,
        own_group,
        group_of_nobody,
        sticky_parent,
        access_list_for_reading,
        access_list_under_a_mask,
        access_list_of_the_account,
        link_to_a_device,
        links_in_a_circle,
    ],
    ids=lambda case: case.__name__,
)
def test_what_only_root_and_the_account_can_change_is_fine(
    root: Path, harmless: Callable[[Path], None]
) -> None:
    harmless(root)
    result = inspect(root)
    assert not result.get("failed"), result["msg"]
    assert result["changed"] is False
    assert "Other accounts than root and daemon can change none of the" in result["msg"]


@pytest.mark.parametrize("evil", [own_file, own_group], ids=["file", "group"])
def test_what_is_the_account_s_is_refused_for_another_account(
    root: Path, evil: Callable[[Path], None]
) -> None:
    evil(root)
    result = inspect(root, account="root")
    assert result["refused"] == [str(site(root))]
    assert "other accounts than root can change" in result["msg"]


def test_who_is_a_member_by_the_group_s_own_list_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group_of_nobody(root)
    entry = grp.struct_group(("ops", "x", NO_GROUP, ["gone", ACCOUNT]))
    monkeypatch.setattr("grp.getgrgid", lambda gid: entry)
    assert not inspect(root).get("failed")
    entry = grp.struct_group(("ops", "x", NO_GROUP, ["gone", ACCOUNT, OTHER]))
    assert "group ops, mode 0664" in inspect(root)["msg"]


def test_many_paths_of_one_kind_are_one_line_with_one_command(root: Path) -> None:
    folder = root / "kit/playbooks"
    for number in range(30):
        (folder / f"{number}.yml").touch()
        (folder / f"{number}.yml").chmod(0o666)
    result = inspect(root)
    assert len(result["refused"]) == 30
    (line,) = result["msg"].splitlines()[1:]
    assert f"and 29 more below {folder}: chmod -R o-w " in line
    subprocess.run(["sh", "-c", line.rpartition(": ")[2]], check=True)
    assert not inspect(root).get("failed")


def test_of_very_many_lines_the_first_are_shown(root: Path) -> None:
    folders = [root / f"kit/{number}" for number in range(14)]
    for folder in folders:
        folder.mkdir()
        folder.chmod(0o777)
    result = inspect(root, trees=[], folders=[str(folder) for folder in folders])
    assert (len(result["refused"]), len(result["msg"].splitlines())) == (14, 12)
    assert result["msg"].endswith("- and 4 more")


def test_a_name_that_is_no_text_is_shown(root: Path) -> None:
    path = root / "kit/playbooks" / os.fsdecode(b"\xff.yml")
    path.touch()
    path.chmod(0o666)
    assert "\\xff.yml" in inspect(root)["msg"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"account": "no-such-account"}, "This host has no account no-such-account."),
        ({"trees": ["playbooks"]}, "Give absolute paths, not playbooks."),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(root: Path, options: dict[str, Any], sentence: str) -> None:
    result = inspect(root, **options)
    assert (result["failed"], result["msg"]) == (True, sentence)


def test_check_mode_refuses_the_same(root: Path) -> None:
    path = file_for_all(root)
    options = {"account": ACCOUNT, "trees": [str(root / "kit/playbooks")]}
    assert run("trusted_paths", check=True, **options)["refused"] == [str(path)]
