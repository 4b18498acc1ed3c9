"""Machines for tests: the descriptions beside this module, served by our libnvidia-ml below the real pynvml.

A test that asks for it gets our libcuda, too.

The loader finds the library through LD_LIBRARY_PATH, which must be set before a process starts: run what is to be
tested in a child process, with the environment that `machine` gives.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
DESCRIPTIONS = HERE / "descriptions"
NAMES = sorted(path.stem for path in DESCRIPTIONS.glob("*.json"))
NO_DRIVER = "no-driver"

Description = dict[str, Any]
Edit = Callable[[Description], object]


@pytest.fixture(scope="session")
def nvml_library() -> Path:
    """The folder that holds our libnvidia-ml.so.1, compiled once for each state of its source."""
    return compiled("nvml.c", "libnvidia-ml.so.1")


@pytest.fixture(scope="session")
def cuda_library() -> Path:
    """The folder that holds our libcuda.so.1, apart from NVML's: real engines would take it for a GPU's."""
    return compiled("cuda.c", "libcuda.so.1")


@pytest.fixture(scope="session")
def without_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose libraries cannot be loaded: they hide real ones, so that a machine with a driver has none."""
    folder = tmp_path_factory.mktemp("without-driver")
    for library in ("libnvidia-ml.so.1", "libcuda.so.1"):
        (folder / library).touch()
    return folder


@pytest.fixture
def machine(
    nvml_library: Path, cuda_library: Path, without_driver: Path, tmp_path: Path
) -> Callable[..., dict[str, str]]:
    """A function: the name of a description (or "no-driver") -> the variables that put a child process on that machine.

    The description is copied to the test's own folder, first changed by `edit` if there is one; `rewrite` changes it
    again while the child runs. `cuda`: the machine has a libcuda, too.
    """

    def on(name: str, edit: Edit | None = None, cuda: bool = False) -> dict[str, str]:
        if name == NO_DRIVER:
            return _path_to(without_driver)
        target = tmp_path / f"machine-{name}.json"
        shutil.copy(DESCRIPTIONS / f"{name}.json", target)
        env = {"MSCLI_TEST_MACHINE": str(target), **_path_to(nvml_library, *([cuda_library] if cuda else []))}
        if edit:
            rewrite(env, edit)
        return env

    return on


def rewrite(env: dict[str, str], edit: Edit) -> None:
    """Changes the description that `env` names, in one step; every process on that machine sees it at its next call."""
    path = Path(env["MSCLI_TEST_MACHINE"])
    description = json.loads(path.read_text())
    edit(description)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(description, ensure_ascii=False))
    fresh.replace(path)


def description(name: str) -> Description:
    """A shipped description as plain values."""
    loaded: Description = json.loads((DESCRIPTIONS / f"{name}.json").read_text())
    return loaded


def child(code: str, env: dict[str, str], *arguments: str, stdin: str = "") -> str:
    """What a fresh Python prints with `env` added. No CUDA or NVIDIA variable of the tester's own is passed on."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "NVIDIA_"))}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env={**plain, **env}, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _path_to(*folders: Path) -> dict[str, str]:
    rest = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": ":".join([*map(str, folders), *([rest] if rest else [])])}


def compiled(source: str, name: str) -> Path:
    sources = [HERE / "native" / source, *sorted((HERE / "native").glob("*.h"))]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"mscli-tests-{os.getuid()}" / digest
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    library = folder / name
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of pytest-xdist start together
        if not library.exists():
            _compile(sources[0], library)
    return folder


def _compile(source: Path, library: Path) -> None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip(f"no C compiler: the stand-in {library.name} cannot be built")
    fresh = library.with_suffix(".new")
    flags = ["-std=gnu11", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *flags, "-o", str(fresh), str(source), "-lm", "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, f"tests/support/machines/native does not compile:\n{built.stderr}"
    fresh.replace(library)
