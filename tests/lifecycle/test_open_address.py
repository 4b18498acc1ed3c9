"""On an address that other machines reach a key is asked for: by the engine, or by the gateway in front of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.run_mscli import Mscli

Machine = Callable[..., dict[str, str]]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
@pytest.mark.parametrize(("profile", "engine"), [("small-q4", "ollama"), ("small-isq", "mistral.rs")])
def test_an_engine_without_a_key_is_refused_there_without_a_gateway(
    mscli: Mscli, machine: Machine, profile: str, engine: str, host: str
) -> None:
    up = mscli("up", profile, "--host", host, "--plain", "--dry-run", "--json", env=machine("rtx4090"))
    assert (up.code, up.error["code"]) == (1, "engine_unsupported")
    assert up.error["details"] == {"engine": engine, "host": host}


@pytest.mark.parametrize("profile", ["small-q4", "small-isq"])
def test_with_one_the_engine_stays_on_loopback_and_the_gateway_asks_for_a_key(
    mscli: Mscli, machine: Machine, profile: str
) -> None:
    up = mscli("up", profile, "--host", "0.0.0.0", "--dry-run", "--json", env=machine("rtx4090"))
    command = up.data["plan"]["command"]
    assert "0.0.0.0" not in command["line"]
    assert "0.0.0.0" not in str(command["env"])
    assert "mscli's gateway listens on 0.0.0.0:" in up.data["notes"][-1]
    assert up.data["notes"][-1].endswith("and asks for a key")


def test_a_profile_that_says_such_an_address_gets_one_too(mscli: Mscli, machine: Machine, home: Path) -> None:
    folder = home / "config" / "profiles"
    folder.mkdir(parents=True)
    (folder / "open.yaml").write_text(
        "title: Open\nengine: ollama\nmodel: mistral-small-3.1\nvariant: ollama-q4_k_m\ngpus: [1]\nhost: 0.0.0.0\n"
        "context: {floor: 4096, target: 8192}\nkv_types: [f16]\nimages: 0\nautomatic: false\n"
    )
    up = mscli("up", "open", "--dry-run", "--json", env=machine("rtx4090"))
    assert up.data["plan"]["command"]["env"]["OLLAMA_HOST"].startswith("127.0.0.1:")
    assert up.data["notes"][-1].endswith("and asks for a key")


@pytest.mark.usefixtures("gpu_llama")
@pytest.mark.parametrize(("profile", "host"), [("small-q4", "127.0.0.2"), ("small-gguf-q4", "0.0.0.0")])
def test_on_loopback_and_with_a_key_it_is_planned(mscli: Mscli, machine: Machine, profile: str, host: str) -> None:
    assert mscli("up", profile, "--host", host, "--dry-run", "--json", env=machine("rtx4090")).code == 0
