"""From a machine with a driver and Python, and nothing of ours, to an answer: `pip install`, then `mscli up -y`.

The machine is this system's own /usr in namespaces of its own, without /usr/local: a user without root, an empty home,
no network. NVML is the stand-in, the package index a folder of wheels, Ollama its protocol's stand-in in a release.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support import SUPPORT
from support.engines.releases import zstd_packed
from support.machines.nvml_machines import DESCRIPTIONS
from support.ollama.standins import SMALL, STANDIN

from mscli.engines.ollama.installation import VERSION

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
TOOLS = ("unshare", "setpriv", "ip", "mount", "chroot")
NEEDED = os.geteuid() == 0 and all(map(shutil.which, TOOLS)) and Path(PYTHON).exists()
TIMEOUT_S = 600.0

pytestmark = [
    pytest.mark.bare,
    pytest.mark.skipif(not NEEDED, reason="takes root and namespaces to make a machine of its own"),
]

STORY = """\
set -eu
cd
{setup}
python3 -m venv mscli
mscli/bin/pip install --quiet --no-index --find-links /given/wheels mscli
export PATH=$HOME/mscli/bin:$PATH
{commands}
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mscli's wheel, and those of all that it needs, for the system's own Python."""
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run([PYTHON, "-m", "venv", str(folder / "maker")], check=True)
    pip = [str(folder / "maker" / "bin" / "pip"), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--wheel-dir", str(folder / "wheels"), str(ROOT)], check=True, timeout=TIMEOUT_S)
    return folder / "wheels"


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
def given(tmp_path: Path, wheels: Path, nvml_library: Path) -> Path:
    """What the machine is given: wheels, a mirror of releases, a driver, the registry."""
    shutil.copytree(wheels, tmp_path / "wheels")
    mirror(tmp_path / "mirror")
    shutil.copytree(nvml_library, tmp_path / "driver")
    registry = {SMALL: {"layers": [3_000_000, 1_000], "capabilities": ["completion", "vision", "tools"]}}
    (tmp_path / "scene.json").write_text(json.dumps({"registry": registry}))
    tmp_path.chmod(0o755)
    return tmp_path


def told(given: Path, machine: str, commands: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit status, standard error and the JSON lines of a story on a machine."""
    setup = (
        "cp /given/scene.json scene.json\n"
        f"cp /given/{machine}.json machine.json\n"
        "export LD_LIBRARY_PATH=/given/driver MSCLI_TEST_MACHINE=$HOME/machine.json OLLAMA_STANDIN=$HOME/scene.json\n"
        "export MSCLI_OLLAMA_RELEASES=http://127.0.0.1:9000"
    )
    shutil.copy(DESCRIPTIONS / f"{machine}.json", given)
    (given / "story.sh").write_text(STORY.format(setup=setup, commands=commands))
    subprocess.run(["chmod", "-R", "a+rX", str(given)], check=True)
    unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    script = str(SUPPORT / "machines" / "bare_machine.sh")
    done = subprocess.run(
        [*unshare, "sh", script, str(given), "story.sh"], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done.returncode, done.stderr + done.stdout, rows


def test_a_4090_with_nothing_but_python_answers_after_one_command(given: Path) -> None:
    """First without a mirror that answers: it ends before the weights, and what was begun does not stand in the way."""
    commands = """\
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
    status, said, rows = told(given, "rtx4090", commands)
    assert status == 0, said
    refused, asks, again, down = rows
    assert (refused["error"]["code"], asks["error"]["code"]) == ("download_failed", "confirmation_needed")
    assert refused["error"]["hint"]
    assert "huggingface" not in said, "weights were fetched for an engine that is not here"
    assert again["data"]["plan"]["profile"] == "small-q4"
    assert (again["data"]["already"], again["data"]["instance"]["state"], down["ok"]) == (True, "ready", True)
    assert "small-q4 is ready after" in said
    assert 'answer   "' in said
