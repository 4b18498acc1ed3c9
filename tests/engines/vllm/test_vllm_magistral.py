"""Magistral on a real vLLM: from 2507 on it thinks in tokens, which vLLM's own parser takes apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.tiny_models import TinyModels
from support.vllm.vllm_home import Homes, Served, assert_killed_leaves_nothing, served
from support.weather import TOOL

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def model(
    make_home: Homes, one_at_a_time: None, tiny_model: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Magistral 2509."""
    home = make_home(tmp_path_factory.mktemp("magistral"))
    yield served(home, home.write("magistral", tiny_model("magistral", formats=("mistral",))))
    home.mscli("down", "--all")


def test_its_thoughts_come_apart_from_its_answer(model: Served) -> None:
    message = model.client.chat("hello")
    assert message["reasoning"].startswith("The user wants")
    assert message["content"].startswith("Hello! This is a scripted stand-in")
    assert "[THINK]" not in message["content"]


def test_it_calls_tools(model: Served) -> None:
    call = model.client.chat("Weather in Paris?", tools=[TOOL])["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"


def test_a_killed_worker_leaves_nothing_behind(model: Served) -> None:
    assert_killed_leaves_nothing(model, model.home.named("VLLM::Worker"))
