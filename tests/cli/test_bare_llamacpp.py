"""From a machine with GPUs for llama.cpp, a driver and Python, and nothing of ours, to an answer of the real llama.cpp,
and what a disk that fills, a network that goes and a process that is killed leave behind at each step of the way there.

What stands in for CUDA is in support/llamacpp/in_gpus_place. `tests/run_bare_machine faults` runs it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.engines.installed_engines import CACHE
from support.llamacpp.cuda_release import release
from support.machines.bare import POSSIBLE, WHY_NOT, Given, Told, wheels_for
from support.tiny_models import TinyModels

pytestmark = [pytest.mark.bare_faults, pytest.mark.skipif(not POSSIBLE, reason=WHY_NOT)]

SYSTEM = CACHE / "root-new"
REPOSITORY = "bartowski/mistralai_Mistral-Small-3.1-24B-Instruct-2503-GGUF"
NAME = "mistralai_Mistral-Small-3.1-24B-Instruct-2503"
# In memory, where only what is written takes room.
HOME = "200G"
# fate WORD: what happens to the machine (support/machines/internet.py). refused: `up` ends with an error; killed: by a
# signal. left: what is there afterwards. soon COMMAND: waits until it succeeds.
BEGIN = """\
ENGINES=.local/share/mscli/engines
fate() { python3 -c 'import sys, urllib.request as url; url.urlopen("http://127.0.0.1:9002/" + sys.argv[1])' "$1"; }
refused() { if mscli up -y --json; then exit 9; fi; }
killed() { status=0; mscli up -y >shown 2>&1 || status=$?; test $status = 137; }
left() { ls -A "$ENGINES"; mscli engines --json; mscli status --json || test $? = 3; ! pgrep llama-server; }
soon() { timeout 60 sh -c "until $1 >/dev/null 2>&1; do :; done"; }
test "$(id -u)" = 12345
! command -v llama-server
"""
ANSWERED = """\
mscli up -y MORE >shown 2>&1 || { cat shown .local/state/mscli/instances/*/log; exit 1; }
cat shown
mscli status --json
mscli chat "hello" >answer
grep -q "scripted stand-in" answer
mscli down --json
"""


def answered(more: str = "") -> str:
    """The commands that end with an answer."""
    return ANSWERED.replace("MORE", more)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert (SYSTEM / "complete").exists(), "tests/run_bare_machine faults makes the root file systems"
    return wheels_for(SYSTEM, tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    release(SYSTEM / "llama.cpp", folder / "llama.cpp", folder, "http://127.0.0.1:9000/llama.cpp")
    return folder


@pytest.fixture
def given(tmp_path: Path, wheels: Path, releases: Path, nvml_library: Path, tiny_model: TinyModels) -> Given:
    made = Given(tmp_path, system=SYSTEM)
    made.put(wheels, nvml_library)
    (tmp_path / "mirror" / "llama.cpp").symlink_to(releases / "llama.cpp")
    tiny, weights = tiny_model("small31"), tmp_path / "weights"
    weights.mkdir()
    for quantization in ("Q4_K_M", "Q6_K_L", "Q6_K", "Q8_0"):
        (weights / f"{NAME}-{quantization}.gguf").symlink_to(tiny.gguf)
    assert tiny.projector
    (weights / f"mmproj-{NAME}-f16.gguf").symlink_to(tiny.projector)
    made.hub({REPOSITORY: weights})
    made.exports = {"MSCLI_LLAMACPP_RELEASES": "http://127.0.0.1:9000/llama.cpp"}
    return made


@pytest.mark.parametrize(
    ("machine", "more", "profile"),
    [("rtx4090-x2", "", "small-gguf-q8"), ("rtx4090", "--engine llama.cpp", "small-gguf-q4")],
)
def test_a_machine_for_llamacpp_answers_after_one_command(given: Given, machine: str, more: str, profile: str) -> None:
    told = given.run(machine, BEGIN + answered(more), HOME)
    assert told.status == 0, told.said
    status, down = told.rows
    (instance,) = status["data"]["instances"]
    assert (instance["name"], instance["state"], down["ok"]) == (profile, "ready", True)
    assert instance["gpu_share"] == 1.0
    assert "llama.cpp b11669 (CUDA 13)" in told.said
    assert f"{profile} is ready after" in told.said
    assert '\n  answer   "Hello!' in told.said


def without_an_instance(told: Told, refused: int, codes: list[str]) -> None:
    """Every `up` that ended in an error says why and what to type, and nothing half-made was left in use: the engine is
    here in the last ones only, and no instance."""
    errors = [row["error"] for row in told.rows if row["command"] == "up"]
    assert [error["code"] for error in errors] == codes, told.said
    assert all(error["hint"] for error in errors)
    engines = [row["data"]["engines"] for row in told.rows if row["command"] == "engines"]
    there = [row["where"] for rows in engines for row in rows if row["name"] == "llama.cpp"]
    assert [bool(where) for where in there] == [False] * refused + [True] * (len(there) - refused), told.said
    shown = [row["data"]["instances"] for row in told.rows if row["command"] == "status"]
    assert not any(shown[: len(there)])


# The archive has 17 MB and unpacks to 43, the weights have 2.4 MB.
DISK_FILLS = """\
fate 'after?way=mirror&bytes=6000000&does=fill&leaves=1000000'
refused; left; fate room
fate 'after?way=mirror&bytes=1&does=fill&leaves=20000000'
refused; left; fate room
fate 'after?way=hub&bytes=300000&does=fill&leaves=700000'
refused; left; fate room
"""


def test_a_disk_that_fills_while_it_installs_or_downloads_is_named(given: Given) -> None:
    told = given.run("rtx4090-x2", BEGIN + DISK_FILLS + answered(), HOME)
    assert told.status == 0, told.said
    without_an_instance(told, 2, ["disk_full"] * 3)
    engine, unpacked, weights = (row["error"] for row in told.rows if row["command"] == "up")
    assert "MSCLI_HOME" in engine["hint"]
    assert "MSCLI_HOME" in unpacked["hint"]
    assert "HF_HOME" in weights["hint"]
    assert ".fresh-" not in told.said


# From no room at all to what a start needs; then the engine has room, and what mscli adds to its record has none.
NO_ROOM_TO_START = """\
mscli up -y >shown 2>&1
mscli down >shown 2>&1
for leaves in 0 4096 8192 12288 16384 20480 28672; do
    fate "fill?leaves=$leaves"
    if mscli up -y --json; then mscli chat hello 2>&1; else ! pgrep llama-server; fi
    mscli status --json || test $? = 3
    fate room
    mscli down --all >shown 2>&1
done
"""


def test_a_start_on_a_full_disk_says_so_or_serves(given: Given) -> None:
    told = given.run("rtx4090-x2", BEGIN + NO_ROOM_TO_START + answered(), HOME)
    assert told.status == 0, told.said
    starts = [row for row in told.rows if row["command"] == "up"]
    shown = [row["data"]["instances"] for row in told.rows if row["command"] == "status"]
    assert (starts[0]["ok"], starts[-1]["ok"]) == (False, True), told.said
    for start, instances in zip(starts, shown, strict=False):
        assert start["ok"] == bool(instances), told.said
        if not start["ok"]:
            assert start["error"]["code"] == "disk_full"
            assert start["error"]["hint"]
    unsaved = [row["data"]["warnings"] for row in starts if row["ok"] and row["data"]["warnings"]]
    assert any("record.json cannot be written" in warning for warnings in unsaved for warning in warnings), told.said


# A network that is gone for longer than an archive's five tries, and comes back while the weights are tried again.
NETWORK_GOES = """\
fate 'after?way=mirror&bytes=6000000&does=cut'
refused; left; fate network
fate 'after?way=hub&bytes=2000000&does=cut'
mscli up -y >shown 2>&1 & soon 'grep retrying shown'; fate network; wait $!
mscli down >shown 2>&1
"""


def test_a_network_that_goes_is_named_or_waited_for_and_gone_on_with(given: Given) -> None:
    told = given.run("rtx4090-x2", BEGIN + NETWORK_GOES + answered(), HOME)
    assert told.status == 0, told.said
    without_an_instance(told, 1, ["download_failed"])


KILLED = """\
fate 'after?way=mirror&bytes=9000000&does=kill'
killed; left
mscli up -y >shown 2>&1 & soon "ls $ENGINES/*.fresh-*/0/*/libggml-cpu-haswell.so"; fate kill; wait || true
left
fate 'after?way=hub&bytes=2000000&does=kill'
killed; left
! find .cache/huggingface -path "*snapshots*" -name "*.gguf" | grep .
mscli up -y >shown 2>&1 & soon 'ls .local/state/mscli/instances/*/log'; fate kill; wait || true
mscli up -y --json
mscli down >shown 2>&1
! pgrep llama-server
ls -A "$ENGINES" >kept
! grep fresh kept
"""


def test_what_is_killed_at_any_step_is_not_used_and_gone_on_with(given: Given) -> None:
    told = given.run("rtx4090-x2", BEGIN + KILLED + answered(), HOME)
    assert told.status == 0, told.said
    last = next(row for row in told.rows if row["command"] == "up")
    assert last["ok"]
    without_an_instance(Told(0, told.said, [row for row in told.rows if row is not last]), 2, [])
