"""From a machine with an old driver, an old C library, an old or a new Python to an answer, or to the way on.

`tests/run_bare_machine faults` runs it. Python 3.10 is pyenv's, where that is here.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from support.engines.installed_engines import CACHE
from support.llamacpp import cuda_release
from support.machines.bare import POSSIBLE, WHY_NOT, Given, Told, mscli_wheels, wheels_for
from support.machines.nvml_machines import HERE
from support.ollama import release as ollama_release
from support.tiny_models import TinyModels

pytestmark = [pytest.mark.bare_faults, pytest.mark.skipif(not POSSIBLE, reason=WHY_NOT)]

THIS, NEW, OLD = Path("/"), CACHE / "root-new", CACHE / "root-old"
GGUF = "bartowski/mistralai_Mistral-Small-3.1-24B-Instruct-2503-GGUF"
W4A16 = "RedHatAI/Mistral-Small-3.1-24B-Instruct-2503-quantized.w4a16"
NAME = "mistralai_Mistral-Small-3.1-24B-Instruct-2503"
HOME = "200G"
ANSWERS = """\
cp /given/scene.json scene.json
mscli up -y {more} --json
mscli chat hello >answer
grep stand-in answer
mscli down --json
"""
ENDS = """\
cp /given/scene.json scene.json
if mscli up -y {more} --json; then exit 9; fi
! find . -name "*.safetensors" -o -name "*.gguf" -o -name "sha256-*" | grep .
mscli status --json || test $? = 3
"""
On = Callable[[Path, Path | None], Given]


def python_3_10() -> Path:
    found = shutil.which("pyenv")
    root = subprocess.run([found, "root"], capture_output=True, text=True).stdout.strip() if found else ""
    versions = sorted(Path(root, "versions").glob("3.10.*")) if root else []
    return versions[-1] if versions else pytest.skip("pyenv has no Python 3.10 here")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, Path | None], Path]:
    """A function: a system, and the Python that comes first there -> wheels of mscli."""

    @cache
    def made(system: Path, python: Path | None) -> Path:
        folder = tmp_path_factory.mktemp("wheels")
        if system != THIS:
            assert (system / "complete").exists(), "tests/run_bare_machine faults makes the root file systems"
            return wheels_for(system, folder)
        return mscli_wheels(folder, str(python / "bin" / "python3")) if python else mscli_wheels(folder)

    return made


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "mirror"
    ollama_release.release(folder)
    work, address = folder.parent / "work", "http://127.0.0.1:9000/llama.cpp"
    cuda_release.release(NEW / "llama.cpp", folder / "llama.cpp", work, address)
    return folder


@pytest.fixture(scope="module")
def old_driver_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NVML's stand-in for the old C library, by the compiler there."""
    folder = tmp_path_factory.mktemp("nvml")
    with tempfile.TemporaryDirectory(dir=OLD / "tmp") as work:
        shutil.copytree(HERE / "native", Path(work) / "native")
        library = Path(work) / "libnvidia-ml.so.1"
        inside = Path("/tmp", Path(work).name)
        flags = ["-std=gnu11", "-shared", "-fPIC", "-O1", "-o", str(inside / library.name)]
        source = str(inside / "native" / "nvml.c")
        subprocess.run(["chroot", str(OLD), "gcc", *flags, source, "-lm", "-lpthread"], check=True)
        shutil.copy(library, folder)
    return folder


@pytest.fixture
def on(
    tmp_path: Path,
    wheels: Callable[[Path, Path | None], Path],
    releases: Path,
    nvml_library: Path,
    old_driver_library: Path,
    tiny_model: TinyModels,
) -> On:
    """A function: a system, and the Python that comes first there -> what a machine with it is given: a driver, the
    releases of Ollama (the stand-in) and llama.cpp, the hub, and no package index."""

    def given(system: Path, python: Path | None = None) -> Given:
        made = Given(tmp_path, system=system, python=python)
        made.put(wheels(system, python), old_driver_library if system == OLD else nvml_library)
        for path in releases.iterdir():
            (tmp_path / "mirror" / path.name).symlink_to(path)
        shutil.copy(releases.parent / "scene.json", tmp_path)
        tiny, weights = tiny_model("small31"), tmp_path / "weights"
        weights.mkdir()
        (weights / f"{NAME}-Q4_K_M.gguf").symlink_to(tiny.gguf)
        (weights / f"mmproj-{NAME}-f16.gguf").symlink_to(tiny.projector or "")
        made.hub({GGUF: weights, W4A16: tiny_model("small31", formats=("hugging-face",)).folder})
        made.exports = {**ollama_release.EXPORTS, "MSCLI_LLAMACPP_RELEASES": "http://127.0.0.1:9000/llama.cpp"}
        return made

    return given


def answers(told: Told) -> str:
    """The profile that answered."""
    assert told.status == 0, told.said
    up, down = told.rows
    assert (up["ok"], up["data"]["instance"]["state"], down["ok"]) == (True, "ready", True)
    assert "stand-in" in told.said
    return str(up["data"]["plan"]["profile"])


def refusal(told: Told) -> dict[str, str]:
    """The error of an `up` that fetched no weights and names a way on."""
    assert told.status == 0, told.said
    refused, status = told.rows
    assert status["data"]["instances"] == []
    assert refused["error"]["hint"], told.said
    error: dict[str, str] = refused["error"]
    return error


@pytest.mark.parametrize("system", [OLD, NEW], ids=["glibc 2.31, Python 3.11", "Python 3.14"])
def test_ollama_is_installed_and_answers_on_an_old_and_on_a_new_system(on: On, system: Path) -> None:
    assert answers(on(system, None).run("rtx4090", ANSWERS.format(more=""), HOME)) == "small-q4"


def test_mscli_on_python_3_10_installs_ollama_and_answers(on: On) -> None:
    given = on(THIS, python_3_10())
    assert answers(given.run("rtx4090", "mscli/bin/python --version | grep 3.10\n" + ANSWERS.format(more=""), HOME))


def test_under_driver_535_llamacpp_is_installed_as_built_for_cuda_12(on: On) -> None:
    brought = "ls .local/share/mscli/engines/llama.cpp/libcudart.so.12\n"
    told = on(NEW, None).run("driver-535", ANSWERS.format(more="--engine llama.cpp") + brought, HOME)
    assert answers(told) == "small-gguf-q4"


def test_below_the_c_library_of_every_llamacpp_build_nothing_is_fetched(on: On) -> None:
    error = refusal(on(OLD, None).run("rtx4090", ENDS.format(more="--engine llama.cpp"), HOME))
    assert "needs glibc 2.39, this machine has 2.31" in error["message"]
    assert "llama-server with CUDA on PATH" in error["hint"]


def test_under_driver_535_the_vllm_that_runs_there_is_tried_before_weights(on: On) -> None:
    """No package index answers: the engine comes first, and fails with the setting that helps."""
    error = refusal(on(THIS, None).run("driver-535", ENDS.format(more=""), HOME))
    assert (error["code"], "HTTPS_PROXY" in error["hint"] or "PIP_INDEX_URL" in error["hint"]) == (
        "download_failed",
        True,
    )


@pytest.mark.parametrize("system", [THIS, OLD], ids=["this glibc", "glibc 2.31"])
def test_under_driver_470_no_engine_runs_and_the_driver_to_install_is_named(on: On, system: Path) -> None:
    error = refusal(on(system, None).run("driver-470", ENDS.format(more=""), HOME))
    assert error["code"] == "no_fit"
    assert "driver 550 or newer" in error["message"]
    assert "Update the NVIDIA driver" in error["hint"]


# The archive has 3 MB, and so has what is in it; the weights come in five seconds.
OLLAMA_FAULTS = """\
fate() { python3 -c 'import sys, urllib.request as url; url.urlopen("http://127.0.0.1:9002/" + sys.argv[1])' "$1"; }
refused() { if mscli up -y --json; then exit 9; fi; mscli engines --json; mscli status --json || test $? = 3; }
killed() { status=0; mscli up -y >shown 2>&1 || status=$?; test $status = 137; }
cp /given/scene.json scene.json
fate 'after?way=mirror&bytes=500000&does=fill&leaves=200000'
refused; fate room
fate 'after?way=mirror&bytes=800000&does=cut'
refused; fate network
fate 'after?way=mirror&bytes=500000&does=kill'
killed
fate 'after?way=mirror&bytes=1&does=fill&leaves=2400000'
refused; fate room
sed 's/{/{"bytes_per_s": 600000, /' /given/scene.json >scene.json
mscli up -y >shown 2>&1 &
timeout 60 sh -c 'until find . -name "sha256-*-partial" | grep -q .; do :; done'
fate kill; wait || true
mscli status --json || test $? = 3
! pgrep ollama
"""


def test_full_disks_cuts_and_kills_on_the_way_to_ollama(on: On) -> None:
    told = on(THIS, None).run("rtx4090", OLLAMA_FAULTS + ANSWERS.format(more=""), HOME)
    assert told.status == 0, told.said
    refused = [row["error"] for row in told.rows if row["command"] == "up" and not row["ok"]]
    assert [error["code"] for error in refused] == ["disk_full", "download_failed", "disk_full"], told.said
    assert all(error["hint"] for error in refused)
    for rows in (row["data"]["engines"] for row in told.rows if row["command"] == "engines"):
        assert [row["where"] for row in rows if row["name"] == "ollama"] == [None]
    assert answers(Told(0, told.said, told.rows[-2:])) == "small-q4"
