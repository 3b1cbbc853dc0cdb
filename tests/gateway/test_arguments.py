"""The command line of ``litellm claude``."""

from __future__ import annotations

import pytest

from litellm_oauth.cli.arguments import parse


@pytest.mark.parametrize(
    ("argv", "environ", "user"),
    [
        (["status"], {}, "default"),
        (["status"], {"USER_ID": ""}, "default"),
        (["status"], {"USER_ID": "user_1"}, "user_1"),
        (["status", "--user", "alice"], {"USER_ID": "user_1"}, "alice"),
    ],
)
def test_the_user_is_the_option_then_the_environment_then_default(
    argv: list[str], environ: dict[str, str], user: str
) -> None:
    assert parse(argv, environ).user == user


@pytest.mark.parametrize(
    "words",
    [
        ["-code"],
        ["--code_of_base64url"],
        ["-"],
        ["a#b"],
        ["https://localhost/callback?code=-a&state=b"],
    ],
)
def test_a_code_may_look_like_an_option(words: list[str]) -> None:
    assert parse(["callback", *words], {}).code == words[0]
    parsed = parse(["callback", "--user", "alice", *words, "--json"], {})
    assert (parsed.code, parsed.user, parsed.json) == (words[0], "alice", True)


def test_a_code_comes_from_stdin_unless_it_is_an_argument() -> None:
    assert (parse(["callback"], {}).code, parse(["callback", "-"], {}).code) == ("-", "-")
    parsed = parse(["callback", "--user", "alice", "--state=x"], {})
    assert (parsed.code, parsed.user, parsed.state) == ("-", "alice", "x")


def test_a_state_may_begin_with_a_dash_after_an_equals_sign() -> None:
    assert parse(["callback", "abc", "--state=-x"], {}).state == "-x"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["export", "extra"],
        ["import", "a", "b"],
        ["users", "--user", "alice"],
        ["users", "--limit", "0"],
        ["users", "--limit", "some"],
        ["callback", "a", "b"],
        ["status", "extra"],
        ["refresh", "--min-validity", "-5"],
        ["refresh", "--min-validity", "nan"],
        ["refresh", "--min-validity", "soon"],
        ["login", "--forc"],
    ],
)
def test_wrong_use_shows_the_help_and_exits_with_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(argv, {})
    assert caught.value.code == 2
    assert "usage: litellm claude" in capsys.readouterr().err


def test_the_help_has_examples_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], {})
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "litellm claude callback" in shown
    assert "exit codes:" in shown


def test_all_means_everybody_and_nobody_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["refresh", "--all", "--min-validity", "60"], {"USER_ID": "alice"}).all
    assert not parse(["refresh"], {}).all
    with pytest.raises(SystemExit) as end:
        parse(["refresh", "--all", "--user", "alice"], {})
    assert end.value.code == 2
    assert "--all means everybody" in capsys.readouterr().err


def test_users_are_listed_whoever_the_environment_names() -> None:
    parsed = parse(["users", "--after", "alice", "--limit", "5"], {"USER_ID": "bob"})
    assert (parsed.after, parsed.limit) == ("alice", 5)


def test_a_document_comes_from_stdin_unless_a_file_is_named() -> None:
    assert (parse(["import"], {}).file, parse(["import", "-"], {}).file) == ("-", "-")
    parsed = parse(["import", "login.json", "--user", "alice", "--force"], {"USER_ID": "bob"})
    assert (parsed.file, parsed.user, parsed.user_given, parsed.force) == ("login.json", "alice", True, True)
    assert not parse(["import"], {"USER_ID": "bob"}).user_given
