"""Fixtures of the fault tests, and their figures at the end of the output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from chaos.fleet import Fleet
from chaos.fleet import fleet as running_fleet
from support.postgres import database, migrated_template, postgres_server
from support.sandbox import sandbox, sandbox_process
from support.service import Gateways, gateways

__all__ = ["database", "gateways", "migrated_template", "postgres_server", "sandbox", "sandbox_process"]
_FIGURE = "figure"


@pytest_asyncio.fixture
async def fleet(gateways: Gateways) -> AsyncIterator[Fleet]:
    """Workers of this test; none of them outlives it."""
    async with running_fleet(gateways) as found:
        yield found


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says what was measured, in a line that is shown also where the test passes."""
    return lambda line: record_property(_FIGURE, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    figures = [
        (report.nodeid, line)
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, line in report.user_properties
        if name == _FIGURE
    ]
    if figures:
        terminalreporter.section("figures")
        for _, line in sorted(figures, key=lambda found: found[0]):
            terminalreporter.write_line(str(line))
