"""A machine with a driver and Python, and nothing of ours: this system's own /usr, or that of a root file system of
another release, in namespaces of its own.

Takes root. A user without root, an empty home, no network but what `Given` says; NVML is the stand-in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import SUPPORT
from support.machines.nvml_machines import DESCRIPTIONS

ROOT = SUPPORT.parents[1]
PYTHON = "/usr/bin/python3"
TOOLS = ("unshare", "setpriv", "ip", "mount", "chroot", "mkfifo")
POSSIBLE = os.geteuid() == 0 and all(map(shutil.which, TOOLS)) and Path(PYTHON).exists()
WHY_NOT = "takes root and namespaces to make a machine of its own"
TIMEOUT_S = 900.0

STORY = """\
set -eu
cd
cp /given/{machine}.json machine.json
export LD_LIBRARY_PATH=/given/driver MSCLI_TEST_MACHINE=$HOME/machine.json HF_ENDPOINT=$(cat /given/hub)
{exports}
python3 -m venv mscli
mscli/bin/pip install --quiet --no-index --find-links /given/wheels mscli
export PATH=$HOME/mscli/bin:$PATH
{commands}
"""
NVIDIA_SMI = """\
#!/bin/sh
echo {driver}
"""


def mscli_wheels(folder: Path, python: str = PYTHON) -> Path:
    """mscli's wheel, and those of all that it needs, for the system's own Python or another one. Takes a network."""
    _wheels(python, folder, folder / "wheels", str(ROOT))
    return folder / "wheels"


def wheels_for(system: Path, folder: Path) -> Path:
    """The same for the Python of another root file system, by its own pip."""
    _wheels(PYTHON, folder, folder / "mscli", "--no-deps", str(ROOT))
    with tempfile.TemporaryDirectory(dir=system / "tmp") as work:
        shutil.copytree(folder / "mscli", Path(work) / "mscli")
        inside = Path("/tmp") / Path(work).name
        (wheel,) = (folder / "mscli").glob("*.whl")
        within = ["chroot", str(system)]
        _wheels("python3", inside, inside / "wheels", str(inside / "mscli" / wheel.name), within=within)
        shutil.copytree(Path(work) / "wheels", folder / "wheels")
    return folder / "wheels"


def _wheels(python: str, folder: Path, target: Path, *what: str, within: Sequence[str] = ()) -> None:
    env = {**os.environ, **({"PIP_FIND_LINKS": ""} if within else {})}  # a folder that only this system has
    subprocess.run([*within, python, "-m", "venv", str(folder / "maker")], check=True, env=env)
    pip = [str(folder / "maker" / "bin" / "pip"), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*within, *pip, "wheel", "--wheel-dir", str(target), *what], check=True, timeout=TIMEOUT_S, env=env)


@dataclass
class Told:
    """What a story came to: its exit status, all that was printed, and the lines of it that are JSON."""

    status: int
    said: str
    rows: list[dict[str, Any]]


@dataclass
class Given:
    """What machines are given, in a folder that they see as /given. `exports`: variables of the user's shell.

    `system`: the root file system that they have, by default this one; `python`: the folder of the Python that comes
    first there, by default the system's own."""

    folder: Path
    exports: dict[str, str] = field(default_factory=dict)
    system: Path = Path("/")
    python: Path | None = None

    def put(self, wheels: Path, nvml: Path) -> None:
        """Wheels of mscli, and a driver."""
        shutil.copytree(wheels, self.folder / "wheels")
        shutil.copytree(nvml, self.folder / "driver")
        (self.folder / "mirror").mkdir(exist_ok=True)
        self.folder.chmod(0o755)

    def hub(self, repositories: Mapping[str, Path], rate: int | None = None) -> None:
        """What the hub holds, and its bytes per second."""
        told = {"repositories": {name: str(folder) for name, folder in repositories.items()}, "rate": rate}
        (self.folder / "hub.json").write_text(json.dumps(told))

    def run(self, machine: str, commands: str, size: str = "") -> Told:
        """Have the commands typed on a fresh machine of that description. `size`: of the home, if it has an own."""
        self._describe(machine)
        exports = "\n".join(f"export {name}={value}" for name, value in self.exports.items())
        story = STORY.format(machine=machine, exports=exports, commands=commands)
        (self.folder / "story.sh").write_text(story)
        subprocess.run(["chmod", "-R", "a+rX", str(self.folder)], check=True)
        (self.folder / "internet").unlink(missing_ok=True)
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        script = str(SUPPORT / "machines" / "bare_machine.sh")
        env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(SUPPORT.parent)}
        done = subprocess.run(
            [*unshare, "sh", script, str(self.folder), "story.sh", size, str(self.system), str(self.python or "")],
            capture_output=True, text=True, timeout=TIMEOUT_S, env=env,
        )  # fmt: skip
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return Told(done.returncode, done.stderr + done.stdout, rows)

    def _describe(self, machine: str) -> None:
        """The description with one row for each GPU, and the driver's own program that tells its version."""
        told = json.loads((DESCRIPTIONS / f"{machine}.json").read_text())
        told["gpus"] = [{**row, "count": 1} for row in told["gpus"] for _ in range(row.get("count", 1))]
        (self.folder / f"{machine}.json").write_text(json.dumps(told))
        programs = self.folder / "programs"
        programs.mkdir(exist_ok=True)
        (programs / "nvidia-smi").write_text(NVIDIA_SMI.format(driver=told["driver"]))
        (programs / "nvidia-smi").chmod(0o755)
