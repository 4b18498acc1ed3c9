"""Magistral 2506 on a real vLLM, started by an mscli that is killed while it waits; it thinks in plain text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.tiny_models import TinyModels
from support.vllm.vllm_home import Client, Home, Homes, Served, assert_all_gone, wait_for
from support.weather import TOOL

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def model(
    make_home: Homes, one_at_a_time: None, tiny_model: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Magistral 2506, text only, whose mscli is gone."""
    home = make_home(tmp_path_factory.mktemp("magistral2506"))
    files = tiny_model("magistral2506", formats=("mistral",))
    options = {"max_num_seqs": 4, "seed": 7}
    yield _orphaned(home, home.write("magistral2506", files, context=4096, kv="fp8", options=options))
    home.mscli("down", "--all")


def _orphaned(home: Home, arguments: list[str]) -> Served:
    with subprocess.Popen([sys.executable, "-m", "mscli", *arguments], env=home.env) as mscli:
        home.wait_log("Starting to load model")
        mscli.kill()
    wait_for(lambda: home.instance()["state"] == "ready", home.log)
    instance = home.instance()
    return Served(home, Client(instance["base_url"], instance["model"]), [{"data": {"instance": instance}}])


def test_it_goes_on_without_the_mscli_that_started_it(model: Served) -> None:
    assert model.home.mscli("check", "--json").code == 0


def test_chat_makes_it_think_and_takes_the_thought_apart(model: Served) -> None:
    reply = model.home.mscli("chat", "hello", "--json").data
    assert reply["reasoning"].strip().startswith("The user wants")
    assert "scripted stand-in" in reply["text"]
    assert "<think>" not in reply["text"]


def test_others_get_the_thought_as_text_if_they_send_the_prompt(model: Served) -> None:
    prompt = model.home.mscli("env", "--json").data["MSCLI_SYSTEM_PROMPT"]
    hello = {"role": "user", "content": "hello"}
    asked = model.client.chat("", messages=[{"role": "system", "content": prompt}, hello])
    assert "<think>" in asked["content"]
    assert "<think>" not in model.client.chat("", messages=[hello])["content"]


def test_it_calls_tools(model: Served) -> None:
    call = model.client.chat("Weather in Paris?", tools=[TOOL])["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"


def test_it_was_told_what_the_profile_says(model: Served) -> None:
    argv = " ".join(model.home.argv())
    for said in ("--kv-cache-dtype fp8", "--max-num-seqs 4", "--seed 7"):
        assert argv.count(said) == 1
    assert "--reasoning-parser" not in argv


def test_down_ends_what_a_killed_mscli_started(model: Served) -> None:
    down = model.home.mscli("down", "tiny", "--json")
    assert (down.code, down.data["stopped"][0]["survivors"]) == (0, [])
    assert_all_gone(model.home)
