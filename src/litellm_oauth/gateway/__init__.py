"""What the gateway runs: the LiteLLM hook, the HTTP routes, start-up.

LiteLLM is imported by ``serve``, ``startup``, ``hook``, ``keys`` and ``anthropic_routes``. Where it has no
hook for what is wanted it is changed, by ``bearer``, ``health``, ``retry`` and ``speed``, which say what they
lean on: look at these with a new LiteLLM. Everything else knows only shapes, and is tested without it.
"""
