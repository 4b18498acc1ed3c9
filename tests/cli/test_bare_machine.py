"""From a machine with a driver and Python, and nothing of ours, to an answer: `pip install`, then `mscli up -y`.

Ollama is its protocol's stand-in in a release; what machines with vLLM do shows test_bare_vllm.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.machines.bare import POSSIBLE, WHY_NOT, Given, mscli_wheels
from support.ollama.release import EXPORTS, release
from support.tiny_models import TinyModels

pytestmark = [pytest.mark.bare, pytest.mark.skipif(not POSSIBLE, reason=WHY_NOT)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mscli_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def given(tmp_path: Path, wheels: Path, nvml_library: Path) -> Given:
    """What the machine is given: wheels, a mirror of releases, a driver, the registry."""
    made = Given(tmp_path)
    made.put(wheels, nvml_library)
    release(tmp_path / "mirror")
    made.exports = EXPORTS
    return made


def test_a_4090_with_nothing_but_python_answers_after_one_command(given: Given) -> None:
    """First without a mirror that answers: it ends before the weights, and what was begun does not stand in the way."""
    commands = """\
cp /given/scene.json scene.json
test "$(id -u)" = 12345
! command -v ollama
MSCLI_OLLAMA_RELEASES=http://127.0.0.1:9001 mscli up -y --json || mscli up --json || ls -A
mscli up -y >shown 2>&1
mscli up -y --json
mscli chat "hello" >answer
grep -q "stand-in for Ollama" answer
mscli down --json
cat shown
"""
    told = given.run("rtx4090", commands)
    assert told.status == 0, told.said
    refused, asks, again, down = told.rows
    assert (refused["error"]["code"], asks["error"]["code"]) == ("download_failed", "confirmation_needed")
    assert refused["error"]["hint"]
    assert "huggingface" not in told.said, "weights were fetched for an engine that is not here"
    assert again["data"]["plan"]["profile"] == "small-q4"
    assert (again["data"]["already"], again["data"]["instance"]["state"], down["ok"]) == (True, "ready", True)
    assert "small-q4 is ready after" in told.said
    assert 'answer   "' in told.said


@pytest.fixture
def reaches_the_hub(tmp_path: Path, wheels: Path, nvml_library: Path, tiny_model: TinyModels) -> Given:
    """What a machine is given that reaches the hub and no package index: wheels of mscli, a driver."""
    made = Given(tmp_path)
    made.put(wheels, nvml_library)
    made.hub({"mistralai/Mistral-Small-3.1-24B-Instruct-2503": tiny_model("small31", formats=("mistral",)).folder})
    return made


ENDS = """\
mscli up -y --json || echo
ls -A .local/share/mscli/engines 2>/dev/null || true
! find . -name "*.safetensors" | grep .
"""


def test_without_a_network_it_ends_before_weights_with_the_cause_and_the_way_on(reaches_the_hub: Given) -> None:
    """First nothing answers, then the hub alone."""
    reaches_the_hub.exports = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    told = reaches_the_hub.run("h100-80", ENDS + "export HF_ENDPOINT=$(cat /given/hub)\n" + ENDS)
    assert told.status == 0, told.said
    for refused in told.rows:
        assert refused["error"]["code"] == "download_failed", told.said
        assert refused["error"]["hint"], told.said
    assert "HTTPS_PROXY" in told.rows[1]["error"]["hint"]
    assert "vllm\n" not in told.said, "an environment without an engine was left"


def test_a_disk_without_room_is_named_before_anything_is_fetched(reaches_the_hub: Given) -> None:
    told = reaches_the_hub.run("h100-80", ENDS, "400M")
    assert told.status == 0, told.said
    (refused,) = told.rows
    assert refused["error"]["code"] == "disk_full", told.said
    assert refused["error"]["hint"]
