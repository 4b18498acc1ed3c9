"""Files in Hugging Face's format on a real vLLM."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.picture import png
from support.tiny_models import TinyModels
from support.vllm.vllm_home import Homes, Served, assert_killed_leaves_nothing, served
from support.weather import TOOL

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def model(
    make_home: Homes, one_at_a_time: None, tiny_model: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Small 3.1 as transformers stores it."""
    home = make_home(tmp_path_factory.mktemp("hf"))
    files = tiny_model("small31", formats=("hugging-face",))
    yield served(home, home.write("small31", files, format="hugging-face"))
    home.mscli("down", "--all")


def test_it_answers(model: Served) -> None:
    assert "scripted stand-in" in model.client.chat("hello")["content"]


def test_it_calls_tools(model: Served) -> None:
    call = model.client.chat("Weather in Paris?", tools=[TOOL])["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})


def test_it_sees(model: Served) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": png()}}]
    assert model.client.chat(content)["content"] == "I can see one image in this request."


def test_a_killed_engine_core_leaves_nothing_behind(model: Served) -> None:
    assert_killed_leaves_nothing(model, model.home.named("VLLM::EngineCore"))
