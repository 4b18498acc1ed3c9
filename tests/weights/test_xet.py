"""Xet storage, with the real hf_xet on a local store: used where it works, left for plain HTTP where it stalls."""

from __future__ import annotations

import pytest
from support.hub import Hub
from support.hub.server import black_hole
from support.weights.pulls import GGUF, REPOSITORY, Heard, content, pull, whole

pytest.importorskip("hf_xet", reason="hf_xet is not installed: there is no Xet storage to read")
WEIGHTS = content(3_500_000)


@pytest.fixture
def published(hub: Hub) -> Hub:
    hub.add(REPOSITORY, {GGUF: WEIGHTS}, xet=True)
    return hub


def test_bytes_come_from_xet_storage(published: Hub) -> None:
    heard = Heard()
    assert whole(pull(listener=heard).model, WEIGHTS)
    assert published.sent_bytes(GGUF) == 0, "the bytes came over plain HTTP"
    assert heard.codes == []


def test_xet_that_stalls_is_left_for_plain_http(published: Hub) -> None:
    heard = Heard()
    with black_hole() as published.cas_url:
        assert whole(pull(listener=heard).model, WEIGHTS)
    assert "plain_http" in heard.codes
    assert published.sent_bytes(GGUF) == len(WEIGHTS)


def test_xet_whose_token_never_comes_is_left_for_plain_http(published: Hub) -> None:
    heard = Heard()
    with black_hole() as published.xet_token_url:
        assert whole(pull(listener=heard).model, WEIGHTS)
    assert "plain_http" in heard.codes


def test_xet_that_fails_is_left_for_plain_http(published: Hub) -> None:
    published.cas_url = "http://127.0.0.1:9"
    heard = Heard()
    assert whole(pull(listener=heard).model, WEIGHTS)
    assert "plain_http" in heard.codes


def test_xet_can_be_forbidden(published: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    assert whole(pull().model, WEIGHTS)
    assert published.sent_bytes(GGUF) == len(WEIGHTS)
