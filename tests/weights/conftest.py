"""A hub on loopback and an empty home that points at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub import Hub
from support.weights.pulls import point_at


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of this test's own, which the environment points at, and an empty cache."""
    with Hub(tmp_path / "cas") as hub:
        point_at(hub.url, tmp_path, monkeypatch)
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The hub cache of the test."""
    return tmp_path / "home" / "hub"
