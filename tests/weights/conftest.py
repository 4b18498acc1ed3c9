"""A hub on loopback and an empty home that points at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import Hub

OF_THE_USER = ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_XET_CACHE", "SSL_CERT_FILE")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


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


def point_at(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `url` this process's hub, in an environment without this machine's settings."""
    for name in (*OF_THE_USER, *PROXIES, *(name.upper() for name in PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
