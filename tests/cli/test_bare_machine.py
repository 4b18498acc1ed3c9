"""From a machine with a driver and Python, and nothing of ours, to an answer: `pip install`, then `mscli up -y`.

Ollama is its protocol's stand-in in a release; what machines with vLLM do shows test_bare_vllm.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from support.engines.releases import zstd_packed
from support.machines.bare import POSSIBLE, WHY_NOT, Given, mscli_wheels
from support.ollama.standins import SMALL, STANDIN

from mscli.engines.ollama.installation import VERSION

pytestmark = [pytest.mark.bare, pytest.mark.skipif(not POSSIBLE, reason=WHY_NOT)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mscli_wheels(tmp_path_factory.mktemp("wheels"))


def mirror(folder: Path) -> None:
    """A mirror of Ollama's releases, laid out as the publisher's, whose archive holds the stand-in."""
    script = '#!/bin/sh\nexec /usr/bin/python3 -S "$(dirname "$0")/../lib/ollama/standin" "$@"\n'
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        entry = tarfile.TarInfo("bin/ollama")
        entry.size, entry.mode = len(script), 0o755
        tar.addfile(entry, io.BytesIO(script.encode()))
        for path in sorted(STANDIN.glob("*.py")):
            tar.add(path, f"lib/ollama/standin/{path.name}")
    packed, name = zstd_packed(plain.getvalue()), "ollama-linux-amd64.tar.zst"
    release = folder / f"v{VERSION}"
    release.mkdir(parents=True)
    (release / name).write_bytes(packed)
    (release / "sha256sum.txt").write_text(f"{hashlib.sha256(packed).hexdigest()}  ./{name}\n")


@pytest.fixture
def given(tmp_path: Path, wheels: Path, nvml_library: Path) -> Given:
    """What the machine is given: wheels, a mirror of releases, a driver, the registry."""
    made = Given(tmp_path)
    made.put(wheels, nvml_library)
    mirror(tmp_path / "mirror")
    registry = {SMALL: {"layers": [3_000_000, 1_000], "capabilities": ["completion", "vision", "tools"]}}
    (tmp_path / "scene.json").write_text(json.dumps({"registry": registry}))
    made.exports = {"OLLAMA_STANDIN": "$HOME/scene.json", "MSCLI_OLLAMA_RELEASES": "http://127.0.0.1:9000"}
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
