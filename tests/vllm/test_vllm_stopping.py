"""Stopping a real vLLM at every moment of its life: nothing of it is left."""

from __future__ import annotations

import os
import signal

import pytest
from tiny_models import TinyModels
from vllm_home import Client, Home, busy, wait_for

from mscli.lifecycle import port, process

pytestmark = pytest.mark.engines

# Moments of a start, by the line of the log that begins them ("" is the spawn, while everything is being imported).
MOMENTS = ("", "non-default args", "Initializing a V1 LLM engine", "Starting to load model", "init engine")


def assert_all_gone(home: Home, number: int) -> None:
    assert home.belongings() == set(), [process.describe(pid) for pid in home.belongings()]
    assert home.leftovers() == []
    assert port.free("127.0.0.1", number)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment or "spawned")
def test_down_while_it_starts_ends_everything(moment: str, home: Home, tiny_model: TinyModels) -> None:
    files = tiny_model("small31", formats=("mistral",))
    started = home.mscli(*home.write("small31", files), "--no-wait", "--json").data["instance"]
    home.wait_log(moment)
    down = home.mscli("down", "--json")
    stopped = down.data["stopped"][0]
    assert (down.code, stopped["survivors"]) == (0, [])
    assert stopped["seconds"] < 40, stopped
    assert_all_gone(home, started["port"])


def test_down_while_it_answers_ends_everything(home: Home, tiny_model: TinyModels) -> None:
    files = tiny_model("small31", formats=("mistral",))
    started = home.mscli(*home.write("small31", files), "--json").data["instance"]
    with busy(Client(started["base_url"], started["model"])):
        down = home.mscli("down", "--json")
    assert (down.code, down.data["stopped"][0]["survivors"]) == (0, [])
    assert_all_gone(home, started["port"])


def test_workers_of_a_killed_parent_are_seen_and_stopped(home: Home, tiny_model: TinyModels) -> None:
    files = tiny_model("small31", formats=("mistral",))
    started = home.mscli(*home.write("small31", files), "--json").data["instance"]
    os.kill(started["pid"], signal.SIGKILL)
    assert process.wait_death(started["pid"], 10)
    wait_for(lambda: home.instance()["state"] == "crashed", lambda: str(home.instance()))
    assert home.instance()["orphans"], "vLLM's engine core outlives its parent; if it no longer does, say so here"
    status = home.mscli("status")
    assert "mscli down tiny" in status.out + status.err
    down = home.mscli("down", "tiny", "--json")
    assert (down.code, down.data["stopped"][0]["survivors"]) == (0, [])
    assert_all_gone(home, started["port"])
