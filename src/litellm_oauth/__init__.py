"""One OAuth 2.0 login a user for the LiteLLM gateway: tokens kept encrypted and fresh.

Only ``gateway`` and ``cli`` import LiteLLM; everything else runs and is tested without it.
"""

__version__ = "0.1.0"
