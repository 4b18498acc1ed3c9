"""A real vLLM with tiny models, started by `mscli up` and used as clients use it."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.picture import png
from support.tiny_models import TinyModels
from support.vllm.vllm_home import Client, Homes, Served, assert_all_gone, served, wait_for
from support.weather import TOOL

from mscli.instances import process

pytestmark = pytest.mark.engines

KEY = "sk-very-secret-4711"


@pytest.fixture(scope="module")
def small(
    make_home: Homes, one_at_a_time: None, tiny_model: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Small 3.1 in Mistral's format, with a key."""
    home = make_home(tmp_path_factory.mktemp("small"))
    arguments = home.write("small31", tiny_model("small31", formats=("mistral",)))
    yield served(home, arguments, MSCLI_API_KEY=KEY)
    home.mscli("down", "--all")


def test_the_start_is_told_stage_by_stage(small: Served) -> None:
    stages = [event["stage"] for event in small.events if event.get("event") == "stage"]
    assert list(dict.fromkeys(stages)) == ["plan", "weights", "starting", "loading", "ready"]


def test_the_engine_says_what_it_took(small: Served) -> None:
    observed = small.up["observed"]
    assert (observed["context"], observed["kv_bytes"], observed["kv_tokens"]) == (2048, 2**30, 1048576)
    assert observed["max_concurrency"] == 512


def test_it_answers(small: Served) -> None:
    assert "scripted stand-in" in small.client.chat("hello")["content"]
    assert "scripted stand-in" in small.home.mscli("chat", "hello").out


def test_it_streams_to_the_end(small: Served) -> None:
    lines = small.client.stream("hello")
    assert len(lines) > 5
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_it_calls_tools(small: Served, choice: str) -> None:
    call = small.client.chat("Weather in Paris?", tools=[TOOL], tool_choice=choice)["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})


def test_it_sees_images(small: Served) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": png()}}]
    assert small.client.chat(content)["content"] == "I can see one image in this request."


def test_it_goes_by_its_name_and_by_the_repositorys(small: Served) -> None:
    names = [model["id"] for model in small.client.get("/models")["data"]]
    assert names == ["tiny-model", "tests/tiny-small31"]


def test_the_key_is_asked_for_and_stands_in_one_file_only(small: Served) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        Client(small.client.url, small.client.model, "wrong").chat("hello")
    pid = small.up["instance"]["pid"]
    assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert KEY not in json.dumps(small.events)
    holders = [path for path in small.home.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert [path.name for path in holders] == ["key"]


def test_it_samples_as_the_model_wants_unless_told(small: Served) -> None:
    assert "{'temperature': 0.15}" in small.home.log()


def test_its_temporary_files_are_its_own(small: Served) -> None:
    assert small.home.leftovers(), "the sockets are expected in the instance's folder, from where they are removed"


# The last test here ends what the others share.


def test_what_a_killed_parent_leaves_behind_is_seen_and_stopped(small: Served) -> None:
    instance, home = small.up["instance"], small.home
    os.kill(instance["pid"], signal.SIGKILL)
    assert process.wait_death(instance["pid"], 10)
    wait_for(lambda: home.instance()["state"] == "crashed", lambda: str(home.instance()))
    assert home.instance()["orphans"], "vLLM's engine core outlives its parent; if it no longer does, say so here"
    status = home.mscli("status")
    assert "mscli down tiny" in status.out + status.err
    down = home.mscli("down", "tiny", "--json")
    assert (down.code, down.data["stopped"][0]["survivors"]) == (0, [])
    assert_all_gone(home)
