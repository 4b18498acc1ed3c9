"""Stopping a real vLLM at every moment of its life: nothing of it is left."""

from __future__ import annotations

import pytest
from support.tiny_models import TinyModels
from support.vllm.vllm_home import Client, Home, assert_all_gone, busy

pytestmark = pytest.mark.engines

# Moments of a start, by the line of the log that begins them ("" is the spawn, while everything is being imported).
MOMENTS = ("", "non-default args", "Initializing a V1 LLM engine", "Starting to load model", "init engine")


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment or "spawned")
def test_down_while_it_starts_ends_everything(moment: str, home: Home, tiny_model: TinyModels) -> None:
    files = tiny_model("small31", formats=("mistral",))
    assert home.mscli(*home.write("small31", files), "--no-wait").code == 0
    home.wait_log(moment)
    down = home.mscli("down", "--json")
    stopped = down.data["stopped"][0]
    assert (down.code, stopped["survivors"], stopped["port_free"]) == (0, [], True)
    assert stopped["seconds"] < 40, stopped
    assert_all_gone(home)


def test_down_while_it_answers_ends_everything(home: Home, tiny_model: TinyModels) -> None:
    files = tiny_model("small31", formats=("mistral",))  # text only, as the guides serve it on one GPU
    started = home.mscli(*home.write("small31", files, images=0), "--json").data["instance"]
    with busy(Client(started["base_url"], started["model"])):
        down = home.mscli("down", "--json")
    assert (down.code, down.data["stopped"][0]["survivors"]) == (0, [])
    assert_all_gone(home)
