"""Magistral Small 2506: its system prompt is sent and told, and its thoughts come apart from its answer."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.run_mscli import Mscli
from support.tiny_models import TinyModels
from support.tiny_twin import TEXT

from mscli.catalog.load import load_one
from mscli.paths import shipped_profiles

VARIANT = """\
variants:
  q8_0:
    format: gguf
    quantisation: q8_0
    weights_bytes: 2300000
    download_bytes: 2400000
    bytes_source: made for a test
    source: {kind: hub, repository: tests/tiny-2506, files: ["*.gguf"]}
"""
PROFILE = """\
title: A tiny Magistral Small 2506 on the CPU
engine: llama.cpp
model: tiny-2506
variant: q8_0
device: cpu
context: {floor: 1024, target: 4096}
automatic: false
"""


@pytest.fixture
def magistral(mscli: Mscli, home: Path, tiny_model: TinyModels) -> Mscli:
    """mscli with a running Magistral that is as the real one in all but size."""
    profiles = home / "config" / "profiles"
    (profiles / "models").mkdir(parents=True)
    # the shipped entry, with the sizes of the tiny model in place of the real one's
    shipped = (shipped_profiles() / "models" / "magistral-small-2506.yaml").read_text()
    head, _, rest = shipped.partition("  text:\n")
    entry = head + TEXT + rest[rest.index("\ncontext_limit") : rest.index("\nvariants:")] + "\n" + VARIANT
    (profiles / "models" / "tiny-2506.yaml").write_text(entry)
    (profiles / "tiny.yaml").write_text(PROFILE)
    up = mscli("up", "tiny", "--weights", str(tiny_model("magistral2506").folder))
    assert up.code == 0, up.err
    return mscli


def post(url: str, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.loads(answer.read())["choices"][0]["message"])


def test_chat_makes_it_think_and_takes_the_thought_apart(magistral: Mscli) -> None:
    reply = magistral("chat", "hello", "--json").data
    assert reply["reasoning"].strip().startswith("The user wants")
    assert "scripted stand-in" in reply["text"]
    assert "<think>" not in reply["text"]
    assert "</think>" not in reply["text"]


def test_with_another_prompt_it_does_not_think_and_its_own_stands_in_for_none(magistral: Mscli) -> None:
    assert not magistral("chat", "hello", "--system", "Be brief.", "--json").data["reasoning"]
    env = magistral("env", "--json").data
    answer = post(env["OPENAI_BASE_URL"], model=env["MSCLI_MODEL"], messages=[{"role": "user", "content": "hello"}])
    assert answer["reasoning_content"]


def test_other_clients_get_the_prompt_from_env(magistral: Mscli) -> None:
    script = f'{magistral("env").out}\nprintf %s "$MSCLI_SYSTEM_PROMPT"'
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    prompt = load_one("magistral-bf16", shipped_profiles(), None)[1].system_prompt
    assert prompt is not None
    assert told.rstrip("\n") == prompt.rstrip("\n")
    env = magistral("env", "--json").data
    messages = [{"role": "system", "content": told}, {"role": "user", "content": "hello"}]
    answer = post(env["OPENAI_BASE_URL"], model=env["MSCLI_MODEL"], messages=messages)
    assert "<think>" in answer["content"] or answer.get("reasoning_content")


def test_show_tells_what_its_makers_recommend(mscli: Mscli) -> None:
    shown = mscli("profiles", "show", "magistral-bf16").out
    assert "# recommended: temperature 0.7, top_p 0.95, max_tokens 40960; at most 40960 tokens of context" in shown
    assert "#   A user will ask you to solve a task. You should first draft your thinking process" in shown
    assert "MSCLI_SYSTEM_PROMPT" not in mscli("profiles", "show", "small-bf16").out
