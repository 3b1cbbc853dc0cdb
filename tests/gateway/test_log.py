"""Which words choose how much is logged, and which ones end the start."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from litellm_oauth.errors import SettingsError
from litellm_oauth.gateway.log import log_level, write_to_log

LOGGERS = ("litellm_oauth", "LiteLLM", "LiteLLM Proxy", "LiteLLM Router")


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, "INFO"),
        ({"LITELLM_LOG_LEVEL": "debug"}, "DEBUG"),
        ({"LITELLM_LOG_LEVEL": " WARNING "}, "WARNING"),
        ({"LITELLM_LOG_LEVEL": "", "LITELLM_LOG": "ERROR"}, "ERROR"),
        ({"LITELLM_LOG_LEVEL": "ERROR", "LITELLM_LOG": "DEBUG"}, "ERROR"),
        ({"LITELLM_LOG_LEVEL": "ERROR", "DETAILED_DEBUG": "true"}, "DEBUG"),
        ({"DETAILED_DEBUG": "1"}, "DEBUG"),
        ({"DETAILED_DEBUG": "False"}, "INFO"),
        ({"LITELLM_DISABLE_REDACT_SECRETS": "false"}, "INFO"),
    ],
)
def test_the_level_is_the_one_asked_for(environ: dict[str, str], level: str) -> None:
    assert log_level(environ) == level


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        (
            {"LITELLM_LOG_LEVEL": "LOUD"},
            "LITELLM_LOG_LEVEL: is none of the possible words; write one of: DEBUG, INFO, WARNING, ERROR",
        ),
        (
            {"LITELLM_LOG": "LOUD"},
            "LITELLM_LOG: is none of the possible words; write one of: DEBUG, INFO, WARNING, ERROR",
        ),
        ({"DETAILED_DEBUG": "maybe"}, "DETAILED_DEBUG: is neither true nor false; write one of the two"),
        (
            {"LITELLM_DISABLE_REDACT_SECRETS": "True"},
            "LITELLM_DISABLE_REDACT_SECRETS: is true, which would write users' tokens into the log; "
            "leave it out",
        ),
    ],
)
def test_what_nobody_understands_and_what_shows_tokens_is_a_fault(
    environ: dict[str, str], fault: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        log_level(environ)
    assert caught.value.faults == (fault,)


@pytest.fixture
def loggers() -> Iterator[list[logging.Logger]]:
    """As they are before the gateway starts, and again afterwards."""
    found = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in found]
    for logger in found:
        logger.handlers[:] = []
        logger.setLevel(logging.NOTSET)
    yield found
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


@pytest.mark.parametrize(
    ("level", "of_litellm"), [("DEBUG", "DEBUG"), ("INFO", "NOTSET"), ("ERROR", "ERROR")]
)
def test_litellm_follows_but_for_its_lines_about_each_request(
    loggers: list[logging.Logger], level: str, of_litellm: str
) -> None:
    write_to_log(level)
    write_to_log("WARNING")
    ours, *theirs = [logging.getLevelName(logger.level) for logger in loggers]
    assert ours == level
    assert theirs == [of_litellm] * 3
    assert len(loggers[0].handlers) == 1
