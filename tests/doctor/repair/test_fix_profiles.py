"""`mscli doctor --fix` on the user's own profiles: one remedy or none, and everything else as it was written."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.doctor.in_process import Doctor, doctor_of
from support.run_mscli import Mscli, Ran

from mscli.cli.main import main

Write = Callable[[str], Path]
FIX = ("--fix", "--only", "profile")
CONTEXT = "context:\n  floor: 1024\n  target: 4096   # enough\n"
AUTOMATIC = "automatic: false\n"
GOOD = f"""\
# mine, and a comment of mine
title: Mine   # the name
engine: llama.cpp
model: rehearsal
variant: q8_0
device: cpu
{AUTOMATIC}{CONTEXT}"""


@pytest.fixture
def doctor(user_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """`mscli doctor ... --json` of this user."""
    run = doctor_of(user_env, monkeypatch, capsys)
    return lambda *args: run(*args, "--json")


@pytest.fixture
def profile(home: Path) -> Write:
    def write(text: str) -> Path:
        path = home / "config" / "profiles" / "mine.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return write


def only(ran: Ran) -> dict[str, Any]:
    (fix,) = ran.data["fixes"]
    return dict(fix)


# what is wrong: (a part of GOOD, what stands in its place in the profile that is right, and in the broken one)
MENDED = {
    "a key that is misspelt": ("title: Mine", "title: Mine", "tile: Mine"),
    "a section that is misspelt": ("context:\n", "context:\n", "contxt:\n"),
    "a key of a section that is misspelt": ("  target:", "  target:", "  traget:"),
    "a key in quotes": ("title:", "'title':", "'titel':"),
    "a key of a section on one line": (CONTEXT, "context: {floor: 8, target: 9} #", "context: {floor: 8, tarqet: 9} #"),
    "a target beyond the model's limit": ("target: 4096", "target: 131072", "target: 1_000_000"),
    "a cap beyond the model's limit": ("# enough", "# enough\n  cap: 131072", "# enough\n  cap: 999999"),
    "a target above the cap": ("target: 4096", "cap: 2048\n  target: 2048", "cap: 2048\n  target: 4096"),
    "an option with dashes": (
        AUTOMATIC, AUTOMATIC + "options:\n  verbose: on\n", AUTOMATIC + "options:\n  --verbose: on\n"
    ),
    "an option that this llama.cpp spells with hyphens": (
        AUTOMATIC, AUTOMATIC + "options: {ubatch-size: 64}\n", AUTOMATIC + "options: {ubatch_size: 64}\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("what", MENDED)
def test_what_has_one_remedy_is_mended(what: str, ending: str, doctor: Doctor, profile: Write) -> None:
    place, right, wrong = (part.replace("\n", ending) for part in MENDED[what])
    good = GOOD.replace("\n", ending)
    broken = good.replace(place, wrong, 1)
    path = profile(broken)

    fixed = only(doctor(*FIX))

    assert fixed["done"], fixed
    assert path.read_bytes().decode() == good.replace(place, right, 1)
    assert Path(fixed["touches"][1]).read_bytes().decode() == broken
    assert main(["profiles", "validate", str(path)]) == 0


def test_the_change_is_shown_as_a_diff(mscli: Mscli, profile: Write) -> None:
    path = profile(GOOD.replace("title:", "tile:"))
    shown = mscli("doctor", "--fix", "--dry-run")
    assert "-tile: Mine   # the name" in shown.out
    assert "+title: Mine   # the name" in shown.out
    assert "Nothing was changed" in shown.out
    assert path.read_text() == GOOD.replace("title:", "tile:")


REFUSED = {
    "a key like two valid ones": ("automatic: false", "automatic: false\nimges: 0"),
    "a key like none": ("automatic: false", "automatic: false\nfrobnicate: 1"),
    "a floor above a cap that was given": ("  floor: 1024", "  floor: 4000\n  cap: 2000"),
    "a key that is there already": ("title: Mine", "title: Mine\ntitel: Mine"),
    "a value of another kind": ("automatic: false", "automatic: maybe"),
    "a part that can be mended, and one that cannot": ("title: Mine", "tile: Mine\nfrobnicate: 1"),
    "a key twice on its line": ("  target: 4096", "  ? traget\n  : 4096"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_only_the_author_can_decide_is_left_and_told(what: str, doctor: Doctor, profile: Write) -> None:
    path = profile(GOOD.replace(*REFUSED[what], 1))
    before = path.read_bytes()
    ran = doctor(*FIX)
    assert ran.data["fixes"] == []
    assert [each["command"] for each in ran.data["commands"]] == [f"mscli profiles validate {path}"]
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["mine.yaml"]


def test_a_profile_that_is_right_is_left_alone(doctor: Doctor, profile: Write) -> None:
    path = profile(GOOD)
    assert doctor(*FIX).data["fixes"] == []
    assert path.read_text() == GOOD


def test_a_port_that_somebody_else_has_becomes_a_free_one(doctor: Doctor, profile: Write) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        path = profile(f"{GOOD}port: {taken}  # mine\n")
        fixed = only(doctor(*FIX))
    number = int(path.read_text().split("port: ")[1].split()[0])
    assert number > taken
    assert str(os.getpid()) in fixed["what"], "who has it is said"
    assert path.read_text() == f"{GOOD}port: {number}  # mine\n"


def test_a_port_that_its_own_instance_uses_stays(mscli: Mscli, profile: Write) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    path = profile(f"{GOOD}port: {number}\n")
    assert mscli("up", "mine").code == 0
    assert mscli("doctor", *FIX, "--json").data["fixes"] == []
    assert path.read_text() == f"{GOOD}port: {number}\n"


LARGE = """\
title: As much as one could overrides for
engine: llama.cpp
model: mistral-small-3.1
variant: q4_k_m
gpus: [1]
context: {floor: 131072, cap: 131072}
"""


@pytest.mark.usefixtures("gpu_llama")
def test_a_floor_that_no_free_memory_holds_is_lowered(
    mscli: Mscli, profile: Write, machine: Callable[..., dict[str, str]]
) -> None:
    path = profile(LARGE)
    env = machine("rtx4090")
    assert mscli("up", "mine", "--dry-run", env=env).code == 4
    assert only(mscli("doctor", *FIX, "--json", env=env))["done"]
    floor = int(path.read_text().split("floor: ")[1].split(",")[0])
    assert 8192 <= floor < 131072
    assert mscli("up", "mine", "--dry-run", env=env).code == 0


def test_memory_that_others_hold_for_now_lowers_nothing(
    mscli: Mscli, profile: Write, machine: Callable[..., dict[str, str]]
) -> None:
    path = profile(LARGE.replace("floor: 131072", "floor: 32768"))
    env = machine("rtx4090-full")
    assert mscli("up", "mine", "--dry-run", env=env).code == 4, "it does not fit beside what is held now"
    assert mscli("doctor", *FIX, "--json", env=env).data["fixes"] == []
    assert "floor: 32768" in path.read_text()


def test_the_profile_asked_about_is_mended_before_it_is_looked_at(doctor: Doctor, profile: Write) -> None:
    profile(GOOD.replace("title:", "tile:"))
    assert doctor("mine").error["code"] == "profile_invalid"
    assert only(doctor("mine", "--fix"))["done"]


def test_a_second_change_keeps_the_first_original(doctor: Doctor, profile: Write) -> None:
    path = profile(GOOD.replace("title:", "tile:"))
    doctor(*FIX)
    profile(GOOD.replace("engine:", "engin:"))
    doctor(*FIX)
    kept = sorted(item.read_text() for item in path.parent.glob("mine.yaml.bak-*"))
    assert kept == sorted([GOOD.replace("title:", "tile:"), GOOD.replace("engine:", "engin:")])
