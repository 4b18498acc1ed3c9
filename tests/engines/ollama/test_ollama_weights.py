"""What `mscli weights` shows and frees of models that an Ollama server holds."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from support.ollama.standins import MAGISTRAL, SMALL, Scene, Server
from support.run_mscli import Mscli

Machine = Callable[..., dict[str, str]]
STRANGER = "llama3.2:3b"


@pytest.fixture
def server(scene: Scene, start: Callable[..., Server], machine: Machine) -> Server:
    """A server of the user's own that holds two models of the catalogue and one that mscli knows nothing of."""
    scene.play(registry={**scene.told["registry"], STRANGER: {"layers": [1000], "capabilities": ["completion"]}})
    server = start(**machine("rtx4090"))
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


def test_only_what_nothing_needs_is_removed_and_strangers_never(mscli: Mscli, server: Server, machine: Machine) -> None:
    env = {**machine("rtx4090"), "OLLAMA_HOST": server.host}
    up = mscli("up", "small-q4", "--yes", "--json", env=env)
    assert up.code == 0, up.out
    assert mscli("weights", "prune", "--yes", "--json", env=env).data["on_servers"] == []
    mscli("down", env=env)
    removed = mscli("weights", "prune", "--keep", "small-q4", "--yes", "--json", env=env).data
    assert [model["name"] for model in removed["on_servers"]] == [MAGISTRAL]
    assert names(server) == {SMALL, STRANGER, "mscli/small-q4:latest"}
