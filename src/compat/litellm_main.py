"""``python -m litellm``: one more gateway beside the one that runs, in the foreground, to look into a fault.

With ``LITELLM_LOG_LEVEL=DEBUG`` it says at length how it starts. It listens on loopback, on another port.
Arguments are those of ``litellm``.
"""

import os
import sys

from litellm_oauth.gateway.serve import main

if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.argv += ["--config", "/app/config.yaml", "--host", "127.0.0.1", "--run_granian"]
        os.environ["NUM_WORKERS"] = "1"
    sys.exit(main())
