"""How long the fault tests run, and from which seed. ``make chaos`` sets more than these."""

from __future__ import annotations

import os
import time

KILLS = int(os.environ.get("CHAOS_KILLS", "40"))
STEPS = int(os.environ.get("CHAOS_STEPS", "300"))
# Shown with the figures, so that a plan can be had again; processes keep their own pace.
SEED = os.environ.get("CHAOS_SEED", str(time.time_ns()))
