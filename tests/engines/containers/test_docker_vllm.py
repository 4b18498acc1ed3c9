"""The real vLLM, for the CPU, in a real container: started, used and ended as the profile says."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.containers.container_home import KEY, write_profile
from support.containers.container_images import make_vllm_image
from support.containers.real_docker import Dockerd, wait_for
from support.engines.installed_engines import CACHE
from support.picture import png
from support.run_mscli import Mscli
from support.tiny_models import TinyModels
from support.weather import TOOL

from mscli.instances import process

pytestmark = pytest.mark.engines
START_S = 400


@pytest.fixture(scope="module")
def vllm_image(dockerd: Dockerd) -> Iterator[str]:
    """An image with the vLLM that tests/run_engines installs, made from its files; held against other tests of it."""
    import fcntl

    place = Path(os.environ.get("MSCLI_VLLM") or CACHE / "vllm-0.32.0")
    if not (place / "bin" / "vllm").exists():
        pytest.skip(f"no vLLM in {place}: tests/run_engines docker installs it")
    made = make_vllm_image(("docker", "--host", dockerd.host), place)
    with (place.parent / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield made


@pytest.fixture
def arguments(
    vllm_image: str, dockerd: Dockerd, user_env: dict[str, str], home: Path, tiny_model: TinyModels
) -> list[str]:
    """What starts the tiny model with the real vLLM in a container."""
    user_env["DOCKER_HOST"] = dockerd.host
    write_profile(home, image=vllm_image)
    return ["up", "tiny", "--weights", str(tiny_model("small31", formats=("mistral",)).folder)]


def ask(instance: dict[str, Any], content: object, key: str = KEY, **more: Any) -> dict[str, Any]:
    """The assistant's message."""
    body = {"model": instance["model"], "messages": [{"role": "user", "content": content}], "max_tokens": 64, **more}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{instance['base_url']}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.loads(answer.read())["choices"][0]["message"])


def test_it_starts_answers_calls_tools_sees_and_ends(arguments: list[str], mscli: Mscli, dockerd: Dockerd) -> None:
    ran = mscli(*arguments, "--events", env={"MSCLI_API_KEY": KEY}, timeout_s=START_S)
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 0, events[-1]
    stages = [event["stage"] for event in events if event.get("event") == "stage"]
    assert list(dict.fromkeys(stages)) == ["plan", "weights", "starting", "loading", "ready"]
    up = events[-1]["data"]
    instance, observed = up["instance"], up["observed"]
    assert (observed["context"], observed["kv_bytes"], observed["kv_tokens"]) == (2048, 2**30, 1048576)

    assert "scripted stand-in" in ask(instance, "hello")["content"]
    with pytest.raises(urllib.request.HTTPError, match="401"):  # type: ignore[attr-defined]
        ask(instance, "hello", key="wrong")
    call = ask(instance, "Weather in Paris?", tools=[TOOL], tool_choice="auto")["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})
    picture = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": png()}}]
    assert ask(instance, picture)["content"] == "I can see one image in this request."
    assert mscli("check", "tiny").code == 0

    identity = dockerd.docker("inspect", "--format", "{{.Id}}", instance["container"]).strip()
    assert len(dockerd.processes(identity)) > 1, "vLLM's engine core was expected as a process of its own"
    stopped = mscli("down", "--json").data["stopped"][0]
    assert (stopped["survivors"], stopped["port_free"]) == ([], True)
    assert stopped["seconds"] < 20, stopped
    assert dockerd.containers() == []
    assert dockerd.processes(identity) == []


@pytest.mark.parametrize("moment", ["non-default args", "Starting to load model"])
def test_the_client_killed_while_it_starts_leaves_a_container_that_down_ends(
    moment: str, arguments: list[str], mscli: Mscli, dockerd: Dockerd, home: Path
) -> None:
    instance = mscli(*arguments, "--no-wait", "--json").data["instance"]
    folder = home / "state" / "instances" / "tiny"
    wait_for(lambda: moment in (folder / "log").read_text(), lambda: (folder / "log").read_text(), START_S)
    identity = (folder / "tmp" / "container").read_text().strip()
    os.kill(instance["pid"], signal.SIGKILL)
    assert process.wait_death(instance["pid"], 10)
    now = mscli("status", "tiny", "--json").envelope["data"]["instances"][0]
    assert (now["state"], now["orphaned"]) == ("crashed", True)
    begun = time.monotonic()
    stopped = mscli("down", "tiny", "--json", timeout_s=90).data["stopped"][0]
    assert (stopped["survivors"], stopped["port_free"]) == ([], True)
    assert time.monotonic() - begun < 45, stopped
    assert dockerd.containers() == []
    assert dockerd.processes(identity) == []


def test_a_flag_that_it_does_not_know_is_named_before_weights(
    vllm_image: str, dockerd: Dockerd, mscli: Mscli, user_env: dict[str, str], home: Path
) -> None:
    user_env["DOCKER_HOST"] = dockerd.host
    write_profile(home, image=vllm_image, options="{no-such-flag: true}")
    error = mscli("up", "tiny", "--offline", "--json", timeout_s=START_S).error
    assert (error["code"], error["details"]["cause"]) == ("engine_unsupported", "cli_flags")
    assert dockerd.containers() == []
