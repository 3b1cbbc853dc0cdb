"""A stand-in OAuth 2.0 provider with an Anthropic-shaped API, to test a gateway without an account.

It is a strict judge: it refuses what a standard forbids, and says why. It shares no code with what it judges.
"""

__version__ = "1.0.0"
