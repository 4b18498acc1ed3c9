"""What the guides promise, on the machines they name: the documented command with planned numbers, or why not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.run_mscli import Mscli

Machine = Callable[..., dict[str, str]]
MISTRALS = {"--tokenizer-mode": "mistral", "--config-format": "mistral", "--load-format": "mistral"}
TOOLS = {"--tool-call-parser": "mistral", "--enable-auto-tool-choice": None}
SMALL, MAGISTRAL = "mistralai/Mistral-Small-3.1-24B-Instruct-2503", "mistralai/Magistral-Small-2506"


@dataclass(frozen=True)
class Documented:
    """A `vllm serve` line of a guide, on a machine. `typed`: what to type behind `mscli up`. `contexts`: the least and
    the most that are to be planned."""

    typed: str
    machine: str
    repository: str
    flags: dict[str, str | None]
    contexts: tuple[int, int]
    version: str = "0.32.0"


TEXT = "small-bf16 --images 0 --ctx 32768"
VISION = {"--limit-mm-per-prompt": '{"image": 10}'}
TWO = {"--tensor-parallel-size": "2"}
LINES = {
    "text on one H100": Documented(TEXT, "h100-80", SMALL, MISTRALS | TOOLS, (32768, 32768)),
    "text on one A100": Documented(TEXT, "a100-80", SMALL, MISTRALS | TOOLS, (32768, 32768)),
    "vision on one H100": Documented("small-bf16", "h100-80", SMALL, MISTRALS | TOOLS | VISION, (131072, 131072)),
    "vision on two A6000": Documented(
        "small-bf16 --gpus 0,1", "a6000-x2-nvlink", SMALL, MISTRALS | TOOLS | VISION | TWO, (131072, 131072)
    ),
    "vision on two 5090": Documented(
        "small-bf16 --gpus 0,1", "rtx5090-x2", SMALL, MISTRALS | TOOLS | VISION | TWO, (40960, 65535)
    ),
    "vision, as the first vLLM that can is told it": Documented(
        "small-bf16 --gpus 0,1 --ctx 65536",
        "a6000-x2-nvlink",
        SMALL,
        MISTRALS | TOOLS | TWO | {"--limit-mm-per-prompt": "image=10"},
        (65536, 65536),
        version="0.8.1",
    ),
    "Magistral on two A6000": Documented(
        "magistral-bf16 --gpus 0,1", "a6000-x2-nvlink", MAGISTRAL, MISTRALS | TOOLS | TWO, (40960, 40960)
    ),
    "Magistral on two 5090": Documented(
        "magistral-bf16", "rtx5090-x2", MAGISTRAL, MISTRALS | TOOLS | TWO, (40960, 40960)
    ),
    "Magistral on one H100": Documented("magistral-bf16", "h100-80", MAGISTRAL, MISTRALS | TOOLS, (40960, 40960)),
}


@pytest.fixture
def vllm(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Makes the environment variables of a user who has this version of vLLM, as its files on the disk tell."""

    def made(version: str) -> dict[str, str]:
        place = tmp_path / f"vllm-{version}"
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "vllm").write_text(f"#!{place}/bin/python3\n")
        (place / "lib/python3.12/site-packages" / f"vllm-{version}.dist-info").mkdir(parents=True)
        return {"MSCLI_VLLM": str(place)}

    return made


def flags_of(argv: list[str]) -> dict[str, str | None]:
    """Flag -> its (last) value."""
    return {
        word: None if following.startswith("--") else following
        for word, following in zip(argv, [*argv[1:], "--"], strict=True)
        if word.startswith("--")
    }


def planned(plan: dict[str, Any], argv: list[str]) -> None:
    """The numbers of the command are those of the plan."""
    flags = flags_of(argv)
    assert flags["--max-model-len"] == str(plan["context"])
    share = float(str(flags["--gpu-memory-utilization"]))
    for gpu in plan["memory"]:
        wanted = gpu["free_bytes"] - gpu["margin_bytes"] - gpu["runtime_bytes"]
        assert share * gpu["total_bytes"] >= wanted * 0.97, "the share leaves no room for what was planned"


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_the_documented_line_comes_with_planned_numbers(
    line: Documented, mscli: Mscli, machine: Machine, vllm: Callable[[str], dict[str, str]]
) -> None:
    ran = mscli("up", *line.typed.split(), "--dry-run", "--json", env={**machine(line.machine), **vllm(line.version)})
    assert ran.code == 0, ran.out
    plan = ran.data["plan"]
    argv = plan["command"]["argv"]
    assert argv[1:3] == ["serve", line.repository]
    told = flags_of(argv)
    assert {flag: told.get(flag, "missing") for flag in line.flags} == line.flags
    assert "--reasoning-parser" not in told
    assert line.contexts[0] <= plan["context"] <= line.contexts[1]
    planned(plan, argv)
    devices = plan["command"]["env"]["CUDA_VISIBLE_DEVICES"].split(",")
    assert len(devices) == int(line.flags.get("--tensor-parallel-size") or 1)


def test_two_24_gb_cards_do_not_hold_bf16_and_are_told_what_they_do_hold(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx4090-x2")
    refused = mscli("up", "small-bf16", "--dry-run", "--json", env=env)
    assert (refused.code, refused.error["code"]) == (4, "no_fit")
    assert "weights 22.8 GiB" in refused.error["message"]
    assert re.search(r"GPU 0 \(NVIDIA GeForce RTX 4090\) has [\d.]+ GiB free", refused.error["message"])
    assert re.search(r"[\d.]+ GiB short", refused.error["message"])
    assert "--variant fp8" in refused.error["hint"]
    offered = re.search(r"mscli up (\S+)", refused.error["hint"])
    assert offered is not None
    assert offered[1] == "small-fp8"
    taken = mscli("up", offered[1], "--dry-run", "--json", env=env).data["plan"]
    assert (taken["gpus"], taken["verdict"]) == ([0, 1], "safe")
    assert taken["context"] >= 65536


@pytest.mark.parametrize("model", ["magistral", "small32"])
def test_the_other_models_offer_their_own_fp8_there(model: str, mscli: Mscli, machine: Machine) -> None:
    refused = mscli("up", f"{model}-bf16", "--dry-run", "--json", env=machine("rtx4090-x2"))
    assert (refused.code, refused.error["code"]) == (4, "no_fit")
    assert f"mscli up {model}-fp8 (" in refused.error["hint"]


def test_where_the_engine_has_nothing_that_fits_another_one_is_offered(mscli: Mscli, machine: Machine) -> None:
    refused = mscli("up", "magistral-bf16", "--dry-run", "--json", env=machine("rtx4090"))
    assert "mscli up magistral-q4 (" in refused.error["hint"]
