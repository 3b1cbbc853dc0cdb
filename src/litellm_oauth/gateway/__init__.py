"""What the gateway runs: the LiteLLM hook, the HTTP routes, start-up.

Only ``hook`` and ``startup`` import LiteLLM, so that everything else is tested without it.
"""
