"""What all tests share: the commands of the virtual environment are on PATH, however pytest was started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

# A busy machine is no failure of what is tested.
settings.register_profile("kit", deadline=None)
settings.load_profile("kit")

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
