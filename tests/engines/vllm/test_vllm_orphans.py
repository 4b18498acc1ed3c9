"""SIGKILL of any process of a server that forks as vLLM does, and of the mscli that waits for it: nothing is left.

The same on the real engine, some 25 s each: tests/run_engines vllm.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import SUPPORT, run_mscli
from support.tiny_models import TinyModels
from support.vllm.environments import environment
from support.vllm.vllm_home import Client, Home, Served, assert_all_gone, assert_killed_leaves_nothing, wait_for


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A user whose vLLM is the stand-in."""
    place = tmp_path / "vllm"
    program = environment(place, "vllm-0.32.0+cpu")
    text = (SUPPORT / "vllm" / "forking_vllm.py").read_text()
    program.write_text(f"#!{sys.executable}\n{text}")
    folder = tmp_path / "home"
    made = Home(folder, run_mscli.environment(folder, folder, MSCLI_VLLM=str(place), HOLD=str(tmp_path / "hold")))
    yield made
    made.mscli("down", "--all")


@pytest.fixture
def up(home: Home, tiny_model: TinyModels) -> list[str]:
    """The arguments of `mscli up`."""
    return home.write("small31", tiny_model("small31", formats=("mistral",)))


def running(home: Home) -> Served:
    instance = home.instance()
    return Served(home, Client(instance["base_url"], instance["model"]), [{"data": {"instance": instance}}])


@pytest.mark.parametrize("title", ["serve", "VLLM::EngineCore", "VLLM::Worker"])
def test_what_a_killed_process_leaves_is_ended(title: str, home: Home, up: list[str]) -> None:
    assert home.mscli(*up).code == 0
    assert len(home.belongings()) == 3
    assert home.leftovers(), "the socket that is to be removed was not there"
    assert_killed_leaves_nothing(running(home), home.named(title))


def test_what_a_killed_mscli_started_goes_on_and_can_be_ended(home: Home, up: list[str], tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with subprocess.Popen([sys.executable, "-m", "mscli", *up], env=home.env, stderr=subprocess.DEVNULL) as mscli:
        wait_for(lambda: bool(home.leftovers()), home.log, 30)
        mscli.send_signal(signal.SIGKILL)
    assert home.instance()["state"] == "starting"
    hold.unlink()
    wait_for(lambda: home.instance()["state"] == "ready", home.log, 30)
    stopped = home.mscli("down", "--json").data["stopped"][0]
    assert (stopped["survivors"], stopped["port_free"]) == ([], True)
    assert_all_gone(home)
