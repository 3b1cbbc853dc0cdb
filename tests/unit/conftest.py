"""Fixtures of the unit tests: real databases, and the sandbox provider as a real process."""

from support.fixtures import *  # noqa: F403 -- fixtures are known by their names
