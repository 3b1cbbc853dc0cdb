"""The server: Granian, with workers that are replaced when they die. Proven on Granian 2.8.7."""

from __future__ import annotations

import time
from typing import Any

from granian import Granian
from granian.constants import Interfaces

from .startup_failure import CANNOT_START

# A worker that dies within so many seconds is replaced after a pause.
_YOUNG, _PAUSE = 5.0, 1.0
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
        if any(time.monotonic() - self.wrks[index].birth < _YOUNG for index in workers):
            time.sleep(_PAUSE)
        super()._respawn_workers(workers, *arguments, **options)
        # Granian ends with a worker that dies twice in a row, also where others still serve.
        self.respawned_wrks.clear()


def serve(host: str, port: int, num_workers: int, **options: object) -> None:
    """Serve LiteLLM's application, in place of LiteLLM's own function of this form.

    LiteLLM's lets the whole server end with the first worker that dies. Workers are forked from this process,
    which has imported LiteLLM already, so that a new one serves at once. ``options`` are others of LiteLLM's
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
