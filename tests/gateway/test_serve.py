"""What the image's command does before it starts LiteLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from litellm_oauth.errors import SettingsError
from litellm_oauth.gateway.serve import set_api_keys


def test_api_keys_come_from_files_of_their_names_where_the_list_names_them(tmp_path: Path) -> None:
    (tmp_path / "ONE_KEY").write_text("sk-obviously-fake-1\n")
    (tmp_path / "ANOTHER_KEY").write_text("sk-obviously-fake-2")
    (tmp_path / "OF_YESTERDAY").write_text("sk-obviously-fake-3")
    environ = {"LITELLM_OAUTH_API_KEYS": "ANOTHER_KEY ONE_KEY", "PATH": "/bin"}
    set_api_keys(environ, tmp_path)
    assert environ == {
        "LITELLM_OAUTH_API_KEYS": "ANOTHER_KEY ONE_KEY",
        "PATH": "/bin",
        "ONE_KEY": "sk-obviously-fake-1",
        "ANOTHER_KEY": "sk-obviously-fake-2",
    }


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "BINARY").write_bytes(b"\xff")
    with pytest.raises(SettingsError) as caught:
        set_api_keys({"LITELLM_OAUTH_API_KEYS": "MISSING BINARY"}, tmp_path)
    assert [fault.split(": ", 1)[1] for fault in caught.value.faults] == [
        f"{tmp_path}/MISSING cannot be read (No such file or directory); correct the file or the list",
        f"{tmp_path}/BINARY cannot be read (it is not UTF-8 text); correct the file or the list",
    ]


def test_without_a_list_nothing_is_set(tmp_path: Path) -> None:
    environ = {"PATH": "/bin"}
    set_api_keys(environ, tmp_path)
    assert environ == {"PATH": "/bin"}
