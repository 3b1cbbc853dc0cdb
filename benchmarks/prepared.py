"""What each benchmark imports first: it finds the modules, and says what brings packages that are missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("cryptography", "httpx", "psycopg", "redis", "yaml")

sys.path[:0] = [str(ROOT / folder) for folder in ("src", "sandbox", "tests")]
if missing := [name for name in _PACKAGES if find_spec(name) is None]:
    sys.exit(
        f"{sys.executable} has no {', '.join(missing)}. `make .venv/dev` brings them; then run\n"
        f"  PATH={ROOT}/.venv/bin:$PATH {' '.join(sys.argv)}"
    )
