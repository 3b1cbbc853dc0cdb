"""The server: Granian, with workers that are replaced when they die. Proven on Granian 2.8.7."""

from __future__ import annotations

from typing import Any

from granian import Granian
from granian.constants import Interfaces

from .startup_failure import CANNOT_START

APPLICATION = "litellm.proxy.proxy_server:app"


class Server(Granian):  # type: ignore[misc] # it is installed in the gateway image only
    """Replaces a worker that dies while the others serve, but not one that says that it cannot start."""

    def _respawn_workers(self, workers: list[int], *arguments: Any, **options: Any) -> None:
        if any(self.wrks[index].inner.exitcode == CANNOT_START for index in workers):
            # As if it had died with no replacement wanted: the server ends, and its exit status says so.
            self.interrupt_children.extend(workers)
            self.interrupt_signal = True
            self.main_loop_interrupt.set()
            return
        super()._respawn_workers(workers, *arguments, **options)


def serve(host: str, port: int, num_workers: int, **options: object) -> None:
    """Serve LiteLLM's application, in place of LiteLLM's own function of this form.

    LiteLLM's lets the whole server end with the first worker that dies. ``options`` are others of LiteLLM's
    command line, of which the kit uses none.
    """
    Server(
        APPLICATION,
        address=host,
        port=port,
        workers=max(1, num_workers),
        interface=Interfaces.ASGI,
        respawn_failed_workers=True,
    ).serve()
