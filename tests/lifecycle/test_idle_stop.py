"""`up --idle-stop`: an idle model leaves the memory and comes back with the next request, where the engine can."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.faults.user import until
from support.run_mscli import Mscli

Machine = Callable[..., dict[str, str]]


@pytest.mark.parametrize("key", ["", "secret"], ids=["without a key", "with a key"])
def test_llama_cpp_sleeps_is_shown_so_and_wakes(mscli: Mscli, key: str) -> None:
    env = {"MSCLI_API_KEY": key} if key else {}
    up = mscli("up", "rehearsal", "--idle-stop", "1s", "--json", env=env).data
    assert up["plan"]["command"]["argv"][-2:] == ["--sleep-idle-seconds", "1"]

    def shown() -> dict[str, object]:
        (instance,) = mscli("status", "--json").data["instances"]
        return dict(instance)

    until(lambda: shown()["state"] == "unloaded")  # asking does not keep it awake
    assert shown()["idle_stop_s"] == 1
    assert "server is entering sleeping state" in mscli("logs").out
    assert "unloads after 1 s without a request" in mscli("status").out
    assert mscli("chat", "hello").code == 0
    assert mscli("up", "rehearsal", "--idle-stop", "1s", "--json").data["already"] is True
    until(lambda: shown()["state"] == "unloaded")
    assert mscli("restart").code == 0
    assert shown()["idle_stop_s"] == 1


def test_an_instance_without_it_differs(mscli: Mscli) -> None:
    assert mscli("up", "rehearsal", "--json").data["instance"]["idle_stop_s"] is None
    assert mscli("up", "rehearsal", "--idle-stop", "30m", "--json").error["code"] == "instance_exists"


@pytest.mark.parametrize(("profile", "engine"), [("small-fp8", "vllm"), ("small-isq", "mistral.rs")])
def test_an_engine_that_cannot_says_so(mscli: Mscli, machine: Machine, profile: str, engine: str) -> None:
    up = mscli("up", profile, "--idle-stop", "30m", "--dry-run", "--json", env=machine("h100-80"))
    assert (up.code, up.error["code"]) == (1, "engine_unsupported")
    assert up.error["message"].startswith(f"--idle-stop: {engine} cannot unload")


@pytest.mark.parametrize("text", ["0s", "30", "soon", "-1m", "9" * 30 + "d"])
def test_what_is_no_length_of_time_is_refused(mscli: Mscli, text: str) -> None:
    up = mscli("up", "rehearsal", "--idle-stop", text, "--json")
    assert (up.code, up.error["code"]) == (2, "usage")
