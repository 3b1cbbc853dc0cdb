"""``python -m litellm.proxy.auth.claude_oauth_cli …``: the same as ``litellm claude …``."""

import sys

from litellm_oauth.cli import main

if __name__ == "__main__":
    sys.exit(main())
