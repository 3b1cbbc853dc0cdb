"""``python -m litellm_oauth.cli``."""

import sys

from .main import main

sys.exit(main())
