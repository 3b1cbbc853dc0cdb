"""Which debug tools a run deploys, and which it removes. Nothing is deployed here."""

from __future__ import annotations

from typing import Any

from support.role import rendered


def running(*containers: str) -> dict[str, Any]:
    """What docker_engine would have found."""
    found = [{"Names": [f"/{name}"]} for name in containers]
    return {"docker_engine_answer": {"containers": found, "host_info": {"NCPU": 2}}}


def test_they_are_off_and_those_of_this_stack_that_still_run_are_removed() -> None:
    facts = running(
        "litellm-adminer-1", "litellm-db-1", "other-redis-commander-1", "litellm-redis-commander-1"
    )
    off = rendered({}, facts=facts)
    assert off.debug_tools == []
    assert off.leftover == ["adminer", "redis-commander"]
    assert rendered({}, facts=running("litellm-db-1", "other-adminer-1")).leftover == []


def test_both_are_published_on_loopback_only() -> None:
    on = rendered({"debug_tools_enabled": True}, facts=running("litellm-adminer-1"))
    assert [service["ports"] for service in on.debug_tools] == [
        ["127.0.0.1:8080:8080"],
        ["127.0.0.1:8081:8081"],
    ]
    assert on.leftover == []


def test_adminer_goes_with_postgresql() -> None:
    without = {"debug_tools_enabled": True, "litellm_oauth_use_database": False}
    tools = rendered(without, facts=running("litellm-adminer-1"))
    assert [service["name"] for service in tools.debug_tools] == ["redis-commander"]
    assert tools.leftover == ["adminer"]


def test_a_registry_s_images_are_named_by_their_versions() -> None:
    tools = rendered({"debug_tools_enabled": True, "container_image_source": "registry"}).debug_tools
    assert [service["image"].rpartition(":")[2].count(".") for service in tools] == [2, 2]
