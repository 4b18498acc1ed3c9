from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mscli.catalog.load import Catalog, load_catalog
from mscli.paths import shipped_profiles

MINIMAL = "title: A profile\nengine: llama.cpp\nmodel: mistral-small-3.1\nvariant: q4_k_m\n"


@pytest.fixture(scope="session")
def shipped() -> Path:
    return shipped_profiles()


@pytest.fixture(scope="session")
def catalog(shipped: Path) -> Catalog:
    return load_catalog(shipped, None)


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """An empty folder for a user's own profiles."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    return folder


@pytest.fixture
def profile_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a profile file: the minimal profile and some lines more."""

    def write(lines: str = "", name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(MINIMAL + lines)
        return path

    return write
