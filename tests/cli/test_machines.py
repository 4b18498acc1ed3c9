"""Every described machine: what `mscli gpus` shows and what `mscli up --dry-run` decides, through the real bindings."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from support.machines.nvml_machines import NAMES, NO_DRIVER, description
from support.run_mscli import Mscli
from support.terminal import on_a_terminal

pytestmark = pytest.mark.usefixtures("gpu_llama")

Machine = Callable[..., dict[str, str]]
NO_GPU, NO_FIT = "no_gpu", "no_fit"


@dataclass(frozen=True)
class Decided:
    """What is chosen: profile, GPUs, and the least context that a user of such a card would expect."""

    profile: str
    gpus: tuple[int, ...] = (0,)
    context: int = 32768
    verdict: str = "safe"


DECISIONS: dict[str, Decided | str] = {
    NO_DRIVER: NO_GPU,
    "driver-not-loaded": NO_GPU,
    "driver-mismatch": NO_GPU,
    "nvml-no-permission": NO_GPU,
    "rtx3090": Decided("small-q4"),
    "rtx4090": Decided("small-q4"),
    "rtx4090-desktop": Decided("small-q4"),
    "rtx4090-wsl": Decided("small-q4"),
    "gpu-no-permission": Decided("small-q4"),
    # the driver of CUDA 12.2 is too old for Ollama's bundled runtime, not for a llama.cpp built for it
    "driver-535": Decided("small-gguf-q4"),
    "driver-470": NO_FIT,
    "rtx4090-full": NO_FIT,
    "rtx4090-x2": Decided("small-gguf-q8", (0, 1), 65536),
    "rtx4090-x2-one-lost": Decided("small-q4"),
    "rtx4090-rtx3060": Decided("small-gguf-q8", (0, 1), 16384),
    "rtx5090": Decided("small-fp8", context=16384),
    "rtx5090-x2": Decided("small-bf16", (0, 1), 40960),
    "a6000": Decided("small-fp8", context=65536),
    "a6000-x2-nvlink": Decided("small-bf16", (0, 1), 65536),
    "l40s": Decided("small-fp8", context=65536),
    "a100-40": Decided("small-fp8", context=65536),
    "a100-80": Decided("small-bf16", context=131072),
    "h100-80": Decided("small-bf16", context=131072),
    "h200": Decided("small-bf16", context=131072),
    "h100-x8": Decided("small-bf16", context=131072),
    "h100-mig": NO_FIT,
    "t4": Decided("small-gguf-q4", context=4096, verdict="tight"),
    "v100-16": Decided("small-gguf-q4", context=4096),
    "gb10": Decided("small-q4", context=8192),  # what fits depends on this host's RAM, which a GB10 shares
}


def test_every_description_has_a_decision() -> None:
    assert set(DECISIONS) == {*NAMES, NO_DRIVER}


@pytest.mark.parametrize("name", [name for name in DECISIONS if name != "gb10"])
def test_up_dry_run_decides(name: str, mscli: Mscli, machine: Machine) -> None:
    expected = DECISIONS[name]
    ran = mscli("up", "--dry-run", "--json", env=machine(name))
    if isinstance(expected, str):
        assert (ran.code, ran.envelope["ok"]) == (4, False), ran.out
        assert ran.error["code"] == expected
        assert ran.error["hint"]
        return
    assert ran.code == 0, ran.out
    plan = ran.data["plan"]
    chosen = (plan["profile"], tuple(plan["gpus"]), plan["verdict"])
    assert chosen == (expected.profile, expected.gpus, expected.verdict)
    assert plan["context"] >= expected.context
    assert ran.data["reason"]
    for gpu in plan["memory"]:
        parts = ("weights", "projector", "kv", "compute", "graphs", "runtime", "margin")
        assert gpu["free_bytes"] == sum(gpu[f"{part}_bytes"] for part in parts)
        assert gpu["margin_bytes"] > 0


def test_gb10_is_planned_on_the_hosts_memory(mscli: Mscli, machine: Machine) -> None:
    ran = mscli("up", "--dry-run", "--json", env=machine("gb10"))
    gpu = mscli("gpus", "--json", env=machine("gb10")).data["gpus"][0]
    assert gpu["unified_memory"] is True
    assert gpu["memory_total_bytes"] is None
    assert ran.code in (0, 4), ran.out
    assert (ran.code == 0) == ran.envelope["ok"]


@pytest.mark.parametrize("name", NAMES)
def test_gpus_lists_what_the_description_has(name: str, mscli: Mscli, machine: Machine) -> None:
    told = description(name)
    ran = mscli("gpus", "--json", env=machine(name))
    assert ran.code == 0, ran.out
    data = ran.data
    if told.get("init_error"):
        assert data["gpus"] == []
        assert data["nvml"]["message"]
        return
    assert data["driver"] == told["driver"]
    assert [gpu["index"] for gpu in data["gpus"]] == list(range(sum(gpu.get("count", 1) for gpu in told["gpus"])))
    fields = {"index", "uuid", "name", "memory_total_bytes", "memory_used_bytes", "memory_free_bytes"}
    for gpu in data["gpus"]:
        assert fields | {"compute_capability", "mig", "holders", "problems"} <= set(gpu)


def test_gpus_for_people(mscli: Mscli, machine: Machine) -> None:
    shown = mscli("gpus", env=machine("rtx4090-desktop"))
    assert "NVIDIA GeForce RTX 4090" in shown.out
    assert "another container or user" in shown.out
    assert "Host:" in mscli("gpus", env=machine(NO_DRIVER)).out


def test_a_card_of_no_list_has_its_speed_from_its_clocks(mscli: Mscli, machine: Machine) -> None:
    def unlisted(described: dict[str, Any]) -> None:
        described["gpus"][0] |= {"name": "NVIDIA GeForce RTX 6090", "compute_capability": "12.0"}

    def with_clocks(described: dict[str, Any]) -> None:
        unlisted(described)
        described["gpus"][0]["clocks"] = {"bus_bits": 384, "memory_mhz": 10501, "cores": 16384, "sm_mhz": 3105}

    def speed(edit: Callable[[dict[str, Any]], None] | None) -> Any:
        data = mscli("plan", "small-gguf-q4", "--json", env=machine("rtx4090", edit)).data
        return data["profiles"][0]["speed"]

    assert speed(with_clocks)["decode_tok_s"] == pytest.approx(speed(None)["decode_tok_s"], rel=0.02)
    assert speed(unlisted) is None


def test_a_hidden_gpu_is_not_planned_on(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx4090-x2")
    one = mscli("up", "--dry-run", "--json", env={**env, "CUDA_VISIBLE_DEVICES": "1"})
    assert (one.data["plan"]["profile"], one.data["plan"]["gpus"]) == ("small-q4", [1])
    none = mscli("up", "--dry-run", "--json", env={**env, "CUDA_VISIBLE_DEVICES": ""})
    assert (none.code, none.error["code"]) == (4, NO_GPU)
    assert "CUDA_VISIBLE_DEVICES" in none.error["message"]


def test_bf16_on_two_24_gb_cards_is_refused_with_the_figures(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx4090-x2")
    refused = mscli("up", "small-bf16", "--dry-run", "--json", env=env)
    assert (refused.code, refused.error["code"]) == (4, NO_FIT)
    assert "22.8 GiB" in refused.error["message"]
    assert refused.error["details"]["missing_bytes"] > 2**30
    offload = mscli("up", "small-bf16", "--offload", "--images", "0", "--ctx", "8192", "--dry-run", "--json", env=env)
    assert offload.code == 0, "CPU offload must be possible when it is asked for by name"


def test_without_a_gpu_nothing_runs_on_the_cpu_unasked(mscli: Mscli, machine: Machine) -> None:
    refused = mscli("up", "--json", env=machine(NO_DRIVER))
    assert (refused.code, refused.error["code"]) == (4, NO_GPU)
    assert "mscli up rehearsal" in refused.error["hint"]
    assert mscli("status").code == 3
    assert mscli("up", "rehearsal", env=machine(NO_DRIVER)).code == 0


def test_profiles_give_a_verdict_for_every_profile(mscli: Mscli, machine: Machine) -> None:
    data = mscli("profiles", "--json", env=machine("rtx4090")).data
    assert data["chosen"] == "small-q4"
    assert len(data["profiles"]) > 30
    for profile in data["profiles"]:
        assert profile["verdict"] in ("safe", "tight", "no")
        assert profile["reasons"], profile
    assert json.dumps(data)


def test_plan_says_the_same_as_up(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx5090-x2")
    plan, up = mscli("plan", "--json", env=env).data, mscli("up", "--dry-run", "--json", env=env).data["plan"]
    row = next(row for row in plan["profiles"] if row["profile"] == plan["chosen"])
    same = ("profile", "context", "kv_type", "tensor_parallel", "gpus", "memory", "verdict")
    assert {key: row[key] for key in same} == {key: up[key] for key in same}


def test_plan_for_a_machine_that_is_not_here(mscli: Mscli, tmp_path) -> None:
    on = mscli("plan", "--on", "2x RTX 4090", "--price", "1.20/day", "--json")
    assert (on.code, on.data["chosen"]) == (0, "small-gguf-q8")
    chosen = next(row for row in on.data["profiles"] if row["profile"] == "small-gguf-q8")
    assert (chosen["cost"]["api"], chosen["cost"]["api_usd_per_mtok"]) == ("Azure", 0.3)
    assert 0 < chosen["cost"]["local_usd_per_mtok"] < 100
    described = tmp_path / "machine.yaml"
    described.write_text('gpus: "RTX 4090"\nfree: 10 GiB\nram: 32 GiB\n')
    assert mscli("plan", "--on", str(described), "--json").code == 4
    described.write_text('gpus: "RTX 4090"\nfrei: 10 GiB\n')
    broken = mscli("plan", "--on", str(described), "--json")
    assert (broken.code, broken.error["code"]) == (1, "profile_invalid")
    assert "frei" in broken.error["message"]
    unknown = mscli("plan", "--on", "2x RTX 4091", "--json")
    assert (unknown.code, unknown.error["code"]) == (2, "usage")
    assert "4090" in unknown.error["message"] + unknown.error["hint"]


def test_links_that_differ_are_a_matrix(mscli: Mscli, machine: Callable[..., dict[str, str]]) -> None:
    """Two cards with NVLink between them, and one beside them."""
    env = machine("a6000-x2-nvlink", lambda it: it["gpus"].append({**it["gpus"][0], "count": 1, "nvlinks": []}))
    shown = mscli("gpus", env=env).out
    assert re.search(r"^LINKS +GPU0 +GPU1 +GPU2$", shown, re.MULTILINE), shown
    rows = re.findall(r"^GPU(\d) +(\S+) +(\S+) +(\S+)$", shown, re.MULTILINE)
    assert [row[1 + number] for number, row in enumerate(rows)] == ["-"] * 3
    assert len({cell for row in rows for cell in row[1:]}) > 2, shown


def test_a_verdict_is_a_word_and_on_a_terminal_a_colour(machine: Callable[..., dict[str, str]]) -> None:
    for env, fits in (({}, "\x1b[32mfits"), ({"NO_COLOR": "1"}, "  fits")):
        with on_a_terminal("profiles", env={**machine("rtx4090"), **env}) as terminal:
            assert terminal.ended() == 0
            assert fits in terminal.raw
            assert ("\x1b[" in terminal.raw) == (not env)


def test_plan_over_every_card(mscli: Mscli) -> None:
    data = mscli("plan", "small-bf16", "--on", "all", "--price", "1/hour", "--json").data
    costs = {row["machine"]: row["plan"] and row["plan"]["cost"] for row in data["machines"]}
    assert costs["1x NVIDIA H100 80GB HBM3"]["local_usd_per_mtok"] > 0
    assert len(data["machines"]) > 250
    chosen = {row["machine"]: row["chosen"] for row in data["machines"]}
    assert chosen["1x NVIDIA H100 80GB HBM3"] == "small-bf16"
    assert chosen["1x NVIDIA GeForce RTX 4090"] is None


def test_a_models_name_plans_its_best_way_and_a_familys_says_which_member(
    mscli: Mscli, machine: Callable[..., dict[str, str]]
) -> None:
    env = machine("rtx4090-x2")
    for args in (("plan", "magistral"), ("up", "magistral", "--dry-run", "--no-install")):
        ran = mscli(*args, "--json", env=env)
        assert "Magistral Small 2509, the newest of 'magistral'" in ran.data["reason"], ran.out
    assert all(
        row["model"].startswith("magistral") for row in mscli("plan", "magistral", "--json", env=env).data["profiles"]
    )
    for name in ("mistralai/Magistral-Small-2509", "Magistral Small 2509", "magistral:24b"):
        planned, started = mscli("plan", name, "--json", env=env), mscli("up", name, "--dry-run", "--json", env=env)
        assert started.data["plan"]["profile"] == planned.data["chosen"], f"{name}: {started.out}"
    named = mscli("doctor", "mistralai/Magistral-Small-2509", "--only", "profile", "--json", env=env)
    assert "magistral-2509" in str(named.data)


def test_the_next_command_has_the_options_that_were_typed(machine: Machine) -> None:
    options = "--users 4 --kv q8_0"
    with on_a_terminal("plan", "mistral-small", *options.split(), env=machine("rtx4090")) as terminal:
        assert terminal.ended() == 0
        shown = " ".join(terminal.shown.split())
    assert re.search(rf"start mscli up (\S+) {options} ", shown), shown
    assert re.search(rf"\(full command: mscli plan (\S+) {options}\)", shown), shown
    assert f": mscli plan mistral-small --all {options}" in shown


def test_the_way_that_would_fit_keeps_the_options_that_it_does_not_change(mscli: Mscli, tmp_path) -> None:
    shown = mscli("plan", "small-q4", "--users", "2", "--ctx", "999999", "--on", "H100", "--ram", "32 GiB").out
    command = shown.partition("this would fit: mscli plan ")[2].partition("\n")[0]
    assert command == "small-q4 --ctx 131072 --users 2 --on H100 --ram '32 GiB'"
    assert mscli("plan", *shlex.split(command)).code == 0


def test_what_is_offered_to_start_has_an_engine_here(mscli: Mscli, machine: Machine) -> None:
    here = machine("driver-470")
    for verb in ("plan", "profiles"):
        offered = mscli(verb, env=here).out.partition("To start one by name: mscli up ")[2].split()[0]
        assert offered == "small-cpu", f"{verb}: {offered}"


def test_a_card_that_others_use_is_said_to_fit_when_idle(mscli: Mscli, machine: Machine) -> None:
    here = machine("rtx4090-full")
    ran = mscli("up", "--json", env=here)
    assert "would fit if GPU 0 were idle; in use by PID 5004242 (22.8 GiB)" in ran.error["message"]
    assert "mscli gpus" in ran.error["hint"]
    assert "would fit if GPU 0 were idle" in mscli("plan", "--json", env=here).data["reason"]


def test_without_a_gpu_the_next_command_finds_out_why(mscli: Mscli, machine: Machine) -> None:
    here = machine("driver-mismatch")
    for words in (("gpus",), ("plan",), ("profiles",), ("up",)):
        ran = mscli(*words, env=here)
        assert "mscli doctor" in ran.out + ran.err, words


def test_a_gpu_that_cannot_be_opened_is_named_once(mscli: Mscli, machine: Machine) -> None:
    shown = mscli("gpus", env=machine("gpu-no-permission")).out
    assert "! GPU 1: handle could not be read: Insufficient Permissions\n" in shown


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("24GB", 'Add its compute capability: "24 GB 8.6".'),
        ("RTX 4095", "Did you mean NVIDIA GeForce RTX 4090? To list GPUs: mscli plan --on list."),
    ],
)
def test_a_card_that_is_not_known_is_answered_with_what_to_type(typed: str, hint: str, mscli: Mscli) -> None:
    assert mscli("plan", "--on", typed, "--json").error["hint"].startswith(hint)


def test_a_list_of_every_verdict_may_be_empty(mscli: Mscli) -> None:
    ran = mscli("plan", "devstral", "--engine", "mistral.rs", "--all", "--on", "H100")
    assert (ran.code, ran.err) == (4, "")
    assert "no profile runs on mistral.rs" in ran.out
