"""From a machine with GPUs for vLLM, a driver and Python, and nothing of ours, to an answer of the real vLLM.

Its package index holds the distributions that tests/run_engines installed; what stands in for CUDA is in
support/vllm/package_index.py. `tests/run_bare_machine vllm` runs it: minutes for each machine, and 6 GB of memory.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import SUPPORT
from support.engines.installed_engines import CACHE
from support.machines.bare import POSSIBLE, WHY_NOT, Given, mscli_wheels
from support.tiny_models import TinyModels

from mscli.engines.vllm.installation import VERSION

pytestmark = [pytest.mark.bare_vllm, pytest.mark.skipif(not POSSIBLE, reason=WHY_NOT)]

BF16 = "mistralai/Mistral-Small-3.1-24B-Instruct-2503"
FP8 = "RedHatAI/Mistral-Small-3.1-24B-Instruct-2503-FP8-dynamic"
# In memory, where only what is written takes room: vLLM's environment is 3 GB.
HOME = "200G"
LOGS = ".local/state/mscli/instances/*/log .local/share/mscli/engines/*.log"
ANSWERED = f"""\
test "$(id -u)" = 12345
! command -v vllm
mscli up -y {{more}} >shown 2>&1 || {{{{ cat shown; tail -n 40 {LOGS}; exit 1; }}}}
mscli status --json
mscli chat "hello" >answer
grep -q "scripted stand-in" answer
mscli down --json
cat shown
"""


@pytest.fixture(scope="module")
def index() -> Path:
    """The package index, made once for each state of what makes it."""
    environment = CACHE / f"vllm-{VERSION}"
    assert (environment / "complete").exists(), "tests/run_engines vllm installs what the index is made of"
    makers = [SUPPORT / "vllm" / "package_index.py", *sorted((SUPPORT / "vllm" / "in_gpus_place").glob("*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in makers)).hexdigest()[:12]
    made = CACHE / f"index-{digest}"
    if not made.exists():
        for old in CACHE.glob("index-*"):
            shutil.rmtree(old)
        fresh = made.with_name(f"index-{digest}.unfinished")
        python = str(environment / "bin" / "python")
        subprocess.run([python, str(makers[0]), str(environment), str(fresh)], check=True)
        wanted = ["download", "--quiet", "--no-deps", "--dest", str(fresh / "pypi" / "uv"), "uv"]
        subprocess.run([sys.executable, "-m", "pip", *wanted], check=True)
        fresh.rename(made)
    return made


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mscli_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def bare(tmp_path: Path, wheels: Path, nvml_library: Path, tiny_model: TinyModels) -> Given:
    """What a machine is given that reaches the hub and no package index: wheels of mscli, a driver."""
    made = Given(tmp_path)
    made.put(wheels, nvml_library)
    made.hub(
        {
            BF16: tiny_model("small31", formats=("mistral",)).folder,
            FP8: tiny_model("small31", formats=("hugging-face",)).folder,
        }
    )
    return made


@pytest.fixture
def given(bare: Given, index: Path) -> Given:
    """The same with a mirror of the package index, and no way to PyTorch's own."""
    projects = bare.folder / "mirror" / "simple"
    projects.mkdir(parents=True)
    for project in (*(index / "pypi").iterdir(), *(index / "torch").iterdir()):
        (projects / project.name).symlink_to(project)
    simple = "http://127.0.0.1:9000/simple"
    bare.exports = {"PIP_INDEX_URL": simple, "UV_DEFAULT_INDEX": simple}
    return bare


@pytest.mark.parametrize(
    ("machine", "more", "profile", "context"),
    [("h100-80", "", "small-bf16", "131,072"), ("rtx4090-x2", "--engine vllm", "small-fp8", "98,304")],
)
def test_a_machine_for_vllm_answers_after_one_command(
    given: Given, machine: str, more: str, profile: str, context: str
) -> None:
    told = given.run(machine, ANSWERED.format(more=more), HOME)
    assert told.status == 0, told.said
    status, down = told.rows
    (instance,) = status["data"]["instances"]
    assert (instance["name"], instance["state"], down["ok"]) == (profile, "ready", True)
    assert down["data"]["stopped"][0]["memory_returned_bytes"] > 0
    assert f"{profile} is ready after" in told.said
    assert f"on vllm, {context} tokens of context" in told.said
    assert "\n  answer   " in told.said, "on two workers and two cores the first answer may not come in its 10 s"
    print(told.said)


# Once 300 MB of the environment have come, 50 more fit on the disk.
DISK_FILLS = """\
fate() { python3 -c 'import sys, urllib.request as url; url.urlopen("http://127.0.0.1:9002/" + sys.argv[1])' "$1"; }
fate 'after?way=mirror&bytes=300000000&does=fill&leaves=50000000'
if mscli up -y --json; then exit 9; fi
mscli engines --json
! find .cache/huggingface -name "*.safetensors" | grep .
fate room
"""
# Waits for what a pattern of processes or files shows, ends mscli and its installer as an operating system would.
CUT = """\
mscli up -y >first 2>&1 &
timeout 300 sh -c 'until pgrep -f "uv pip instal[l]" >/dev/null; do sleep 0.1; done'
pkill -9 -f "bin/mscli u[p]"
pkill -9 -f "uv pip instal[l]"
ls -A .local/share/mscli/engines
mscli engines --json
mscli up -y >second 2>&1 &
timeout 300 sh -c 'until find .cache/huggingface -name "*.mscli.incomplete" -size +0 | grep -q .; do sleep 0.1; done'
pkill -9 -f "bin/mscli u[p]"
! find .cache/huggingface -path "*snapshots*" -name "*.safetensors" | grep .
mscli status --json || test $? = 3
"""


def test_what_is_cut_while_it_installs_or_downloads_is_not_used_and_gone_on_with(
    given: Given, tiny_model: TinyModels
) -> None:
    """A disk that fills while it installs comes first."""
    given.hub({BF16: tiny_model("small31", formats=("mistral",)).folder}, rate=300_000)
    told = given.run("h100-80", DISK_FILLS + CUT + ANSWERED.format(more="").replace("! command -v vllm\n", ""), HOME)
    assert told.status == 0, told.said
    full, *engines, idle, status, down = told.rows
    assert full["error"]["code"] == "disk_full", told.said
    assert "MSCLI_HOME" in full["error"]["hint"]
    for rows in (each["data"]["engines"] for each in engines):
        (vllm,) = (row for row in rows if row["name"] == "vllm")
        assert vllm["where"] is None, "a half-installed engine counts as here"
    assert idle["data"]["instances"] == []
    assert (status["data"]["instances"][0]["state"], down["ok"]) == ("ready", True)
    assert "vllm.unfinished" in told.said
    assert "small-bf16 is ready after" in told.said
