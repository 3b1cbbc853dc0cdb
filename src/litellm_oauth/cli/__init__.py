"""``litellm claude …``: log in, see how a login stands, refresh it, move it elsewhere, log out.

It opens the same service as the gateway, in its own process: tokens change in one code path, whoever asks.
LiteLLM is never imported, which would cost seconds.
"""

from .main import main

__all__ = ["main"]
