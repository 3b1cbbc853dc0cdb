"""Fixtures of the tests in which one process, one store or one disk fails; see ``tests/chaos`` for many."""

from support.fixtures import *  # noqa: F403 -- fixtures are known by their names
