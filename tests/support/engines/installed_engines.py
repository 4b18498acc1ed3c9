"""Where tests/run_engines puts the engines that are too heavy for every run."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mscli-tests"
