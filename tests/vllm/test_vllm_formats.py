"""Models in other formats and with thoughts, on a real vLLM."""

from __future__ import annotations

import json

import pytest
from tiny_models import TinyModels
from vllm_home import TOOL, Home, png, served

pytestmark = pytest.mark.engines


def test_hugging_face_files_answer_call_tools_and_see(home: Home, tiny_model: TinyModels) -> None:
    files = tiny_model("small31", formats=("hugging-face",))
    client = served(home, home.write("small31", files, format="hugging-face")).client
    assert "scripted stand-in" in client.chat("hello")["content"]
    call = client.chat("Weather in Paris?", tools=[TOOL])["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": png()}}]
    assert client.chat(content)["content"] == "I can see one image in this request."


def test_magistrals_thoughts_come_apart_from_its_answer(home: Home, tiny_model: TinyModels) -> None:
    files = tiny_model("magistral", formats=("mistral",))
    client = served(home, home.write("magistral", files)).client
    message = client.chat("hello")
    assert message["reasoning"].startswith("The user wants")
    assert message["content"].startswith("Hello! This is a scripted stand-in")
    assert "[THINK]" not in message["content"]
    call = client.chat("Weather in Paris?", tools=[TOOL])["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"
