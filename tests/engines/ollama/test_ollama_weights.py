"""What `mscli weights` shows and frees of models that an Ollama server holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support.ollama.standins import MAGISTRAL, SMALL, Scene, Server
from support.run_mscli import Mscli

Machine = Callable[..., dict[str, str]]
STRANGER = "llama3.2:3b"


@pytest.fixture
def server(scene: Scene, start: Callable[..., Server], machine: Machine, tmp_path: Path) -> Server:
    """A server of the user's own that holds two models of the catalogue and one that mscli knows nothing of."""
    scene.play(registry={**scene.told["registry"], STRANGER: {"layers": [1000], "capabilities": ["completion"]}})
    server = start(**machine("rtx4090"), OLLAMA_MODELS=str(tmp_path / "elsewhere"))
    for name in (SMALL, MAGISTRAL, STRANGER):
        httpx.post(f"{server.url}/api/pull", json={"model": name}, timeout=30)
    return server


def names(server: Server) -> set[str]:
    return {model["name"] for model in httpx.get(f"{server.url}/api/tags").json()["models"]}


def test_models_of_the_catalogue_are_listed_with_their_profiles(mscli: Mscli, server: Server) -> None:
    env = {"OLLAMA_HOST": server.host}
    held = mscli("weights", "--json", env=env).data["on_servers"]
    assert {model["name"]: model["profiles"] for model in held} == {SMALL: ["small-q4"], MAGISTRAL: ["magistral-q4"]}
    assert SMALL in mscli("weights", env=env).out


def test_only_what_is_ours_and_nothing_needs_is_freed(mscli: Mscli, server: Server, machine: Machine) -> None:
    env = {**machine("rtx4090"), "OLLAMA_HOST": server.host}
    for profile in ("small-q4", "magistral-q4"):
        assert mscli("pull", profile, env=env).code == 0
    assert mscli("up", "small-q4", "--yes", "--json", env=env).code == 0
    assert mscli("weights", "prune", "--yes", "--json", env=env).data["on_servers"] == []
    freed = mscli("weights", "prune", "--keep", "magistral-q4", "--yes", "--json", env=env).data
    assert freed["on_servers"] == [], "an instance borrows the one that nothing else needs"
    mscli("down", env=env)
    freed = mscli("weights", "prune", "--keep", "small-q4", "--yes", "--json", env=env).data
    assert [(model["name"], model["ours"]) for model in freed["on_servers"]] == [(MAGISTRAL, True)]
    left = mscli("weights", "--json", env=env).data["on_servers"]
    assert {(model["name"], model["ours"]) for model in left} == {(SMALL, True), (SMALL, False), (MAGISTRAL, False)}
    assert names(server) == {SMALL, MAGISTRAL, STRANGER}


def test_what_an_older_mscli_derived_on_a_server_is_still_freed(mscli: Mscli, server: Server) -> None:
    httpx.post(f"{server.url}/api/create", json={"model": "mscli/gone", "from": SMALL}, timeout=30)
    env = {"OLLAMA_HOST": server.host}
    freed = mscli("weights", "prune", "--yes", "--json", env=env).data
    assert [model["name"] for model in freed["on_servers"]] == ["mscli/gone:latest"]
    assert names(server) == {SMALL, MAGISTRAL, STRANGER}


def blobs(folder: Path) -> list[Path]:
    return sorted((folder / "blobs").iterdir(), key=lambda blob: blob.stat().st_size)


def test_a_damaged_blob_of_our_own_is_found_and_fetched_again(mscli: Mscli, user_env: dict[str, str]) -> None:
    own = Path(user_env["MSCLI_HOME"]) / "data" / "ollama" / "models"
    assert mscli("pull", "small-q4").code == 0
    large = blobs(own)[-1]
    whole = large.read_bytes()
    large.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert mscli("pull", "small-q4", "--verify").code == 0
    assert large.read_bytes() == whole
    small = blobs(own)[0]
    small.write_bytes(b"x" * small.stat().st_size)
    assert mscli("pull", "small-q4").code == 0
    assert small.read_bytes()[:1] == b"{"
    large.write_bytes(whole[:1000])
    assert mscli("pull", "small-q4").code == 0
    assert large.read_bytes() == whole


def test_a_damaged_blob_of_somebody_elses_is_named_and_left(
    mscli: Mscli, user_env: dict[str, str], start: Callable[..., Server]
) -> None:
    server = start()
    httpx.post(f"{server.url}/api/pull", json={"model": SMALL}, timeout=30)
    large = blobs(server.models)[-1]
    damaged = bytes(large.stat().st_size)
    large.write_bytes(damaged)
    refused = mscli("pull", "small-q4", "--verify", "--json")
    assert refused.error["details"]["cause"] == "corrupt_weights"
    assert f"ollama rm {SMALL}" in refused.error["hint"]
    assert large.read_bytes() == damaged
