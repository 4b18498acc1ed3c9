"""Where tests/run_engines puts the engines that are too heavy for every run."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mscli-tests"


def older_vllm(version: str) -> Path:
    """The Python files of another version of vLLM, which run on the packages of the one under test."""
    sources = CACHE / f"parser-{version}"
    assert sources.is_dir(), f"{sources} is missing: tests/run_engines vllm installs it"
    return sources
