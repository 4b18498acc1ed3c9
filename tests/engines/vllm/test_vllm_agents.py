"""A real vLLM behind mscli's gateway: what agents send, which vLLM by itself refuses a part of."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from support.agents.page import requests, shapes
from support.agents.replay import due, replayed, told
from support.tiny_models import TinyModels
from support.vllm.vllm_home import Homes, Served, served

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def fronted(
    make_home: Homes, one_at_a_time: None, tiny_model: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Small 3.1 with a context for agents: `--for agents` puts the gateway in front of vLLM."""
    home = make_home(tmp_path_factory.mktemp("fronted"))
    arguments = home.write("small31", tiny_model("small31", formats=("mistral",)), context=8192)
    yield served(home, [*arguments, "--for", "agents", "--ctx", "8192"])
    home.mscli("down", "--all")


def root(fronted: Served) -> str:
    return fronted.client.url.removesuffix("/v1")


def test_up_for_agents_puts_the_gateway_in_front(fronted: Served) -> None:
    assert fronted.up["instance"]["engine_port"] is not None
    assert httpx.get(f"{root(fronted)}/health", trust_env=False).json() == {"status": "ok"}


def test_every_first_request_of_an_agent_with_tools_gets_a_call_and_none_is_refused(fronted: Served) -> None:
    found = replayed(root(fronted), fronted.client.model)
    assert found == due()
    assert told(found) == requests("vLLM, gateway")


def test_what_agents_send_is_answered_as_the_page_says(fronted: Served) -> None:
    checks = fronted.home.mscli("check", "--for", "agents", "--json").envelope["data"]["checks"]
    found = {each["name"]: each["status"] for each in checks}
    assert found == shapes("vLLM, gateway"), [each for each in checks if each["status"] == "refused"]


def test_a_prompt_above_the_context_is_refused_with_its_code_and_a_longer_limit_is_taken(fronted: Served) -> None:
    url, hello = f"{root(fronted)}/v1/chat/completions", [{"role": "user", "content": "hello"}]
    long = [{"role": "user", "content": "word " * 20_000}]
    refused = httpx.post(url, json={"messages": long}, timeout=60, trust_env=False)
    answered = httpx.post(url, json={"messages": hello, "max_tokens": 32_000}, timeout=60, trust_env=False)

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded"), refused.text
    assert "(8192 tokens)" in refused.json()["error"]["message"]
    assert answered.json()["choices"][0]["message"]["content"].startswith("Hello!")
