"""Proxies and certificates as companies have them: HTTPS through a CONNECT proxy, with a root of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import SUPPORT
from support.hub import Hub
from support.hub.company import proxying, root_certificate
from support.weights.pulls import GGUF, REPOSITORY, content, point_at, whole

PULLS = SUPPORT / "weights" / "pulls.py"
WEIGHTS = content(2_500_000)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A root of one's own, for 127.0.0.1 and localhost, with its key."""
    return root_certificate(tmp_path)


def pull_in_child(**env: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since huggingface_hub reads proxies and certificates once."""
    return subprocess.run([sys.executable, PULLS, GGUF], env={**os.environ, **env}, capture_output=True, text=True)


def test_https_through_a_connect_proxy_with_a_root_of_ones_own(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub(certificate=certificate) as hub, proxying() as proxy:
        point_at(hub.url, tmp_path, monkeypatch)
        hub.add(REPOSITORY, {GGUF: WEIGHTS})
        roots = {"SSL_CERT_FILE": str(certificate), "REQUESTS_CA_BUNDLE": str(certificate)}  # the latter: hub 0.x
        done = pull_in_child(HTTPS_PROXY=f"http://me:secret@{proxy.address}", **roots)
        assert done.returncode == 0, done.stderr
        assert whole(done.stdout.splitlines()[-1].removeprefix("whole "), WEIGHTS)
        tunnels = {line.split(" ")[1] for line in proxy.asked}
        assert tunnels == {f"127.0.0.1:{hub.port}", f"localhost:{hub.port}"}, "the bytes did not come through the proxy"
        assert set(proxy.logins) == {"Basic bWU6c2VjcmV0"}


def test_plain_http_through_a_proxy(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    with proxying() as proxy:
        done = pull_in_child(http_proxy=proxy.address)
        assert done.returncode == 0, done.stderr
        assert any(line.startswith(f"GET {hub.cdn_url}/cdn/") for line in proxy.asked), proxy.asked


def test_no_proxy_is_honoured(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    done = pull_in_child(http_proxy="http://127.0.0.1:9", no_proxy="127.0.0.1,localhost")
    assert done.returncode == 0, done.stderr


def test_proxy_that_nobody_serves_is_named_without_its_password(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    done = pull_in_child(http_proxy="http://user:secret@127.0.0.1:9")
    assert done.returncode == 1
    assert "network_proxy" in done.stderr
    assert "http://***@127.0.0.1:9" in done.stderr
    assert "secret" not in done.stderr


def test_certificate_that_nobody_vouches_for(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub(certificate=certificate) as hub:
        point_at(hub.url, tmp_path, monkeypatch)
        hub.add(REPOSITORY, {GGUF: WEIGHTS})
        done = pull_in_child()
        assert done.returncode == 1
        assert "network_proxy" in done.stderr
        assert "is not trusted" in done.stderr
