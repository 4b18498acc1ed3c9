"""Chains of failures that real vLLMs have logged, from a program that dies of them until it is started otherwise."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import SUPPORT
from support.machines.nvml_machines import child, rewrite
from support.run_mscli import Mscli, Ran
from support.tiny_twin import described

Machine = Callable[..., dict[str, str]]
MODEL = described("A tiny model", """\
capabilities: [vision]
variants:
  fp8:
    format: safetensors-mistral
    quantisation: bf16
    weights_bytes: 4400000
    projector_bytes: 438272
    download_bytes: 5000000
    bytes_source: made for a test
    source: {kind: hub, repository: tests/tiny, files: [params.json, "*.safetensors"]}
""", released="2026-11-20")  # fmt: skip
PROFILE = """\
title: A tiny model
engine: vllm
model: tiny-model
variant: fp8
device: gpu
gpus: [1]
context: {floor: 1024, target: 65536}
kv_types: [f16, fp8]
images: 4
users: 2
automatic: true
rank: 0
options: {options}
"""
# What vLLM says, and what has to stand in the command line or the environment that it no longer says it.
KV = (
    r"--max-model-len 6400\b",
    "ValueError: To serve at least one request with the models's max seq len (65536), (20.0 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (0.98 GiB). Based on the available memory, the estimated "
    "maximum model length is 6400. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`",
)
GRAPHS = (
    r"--enforce-eager\b",
    "INFO Model loading took 14.9 GiB memory and 8 seconds\nCapturing CUDA graphs (mixed prefill-decode): 12%\n"
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 256.00 MiB. GPU 0 has a total capacity of 23.5 GiB",
)
BUSY = (
    r"--gpu-memory-utilization 0\.[1-7]",
    "ValueError: Free memory on device cuda:0 (17.5/23.53 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 21.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
)
IMAGES = (
    r'\{"image": 10\}',
    "vllm serve: error: argument --limit-mm-per-prompt: Value image=10 cannot be converted to <function loads at 0x7>.",
)
HOPELESS = (r"^$", "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`")
DRIVER = (r"^$", "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).")


# A cause that only the doctor's table knows.
BITSANDBYTES = (
    r"^$",
    "RuntimeError: CUDA Setup failed despite GPU being available. Please run: python -m bitsandbytes",
)


class Failing:
    """mscli on a machine with one RTX 4090 and a vLLM that dies of what it is told."""

    def __init__(self, mscli: Mscli, home: Path, env: dict[str, str], weights: Path) -> None:
        self.run, self.home, self.env, self.weights = mscli, home, env, weights

    def profile(self, options: str = "{}", rank: int = 0) -> None:
        folder = self.home / "config" / "profiles"
        (folder / "models").mkdir(parents=True, exist_ok=True)
        (folder / "models" / "tiny-model.yaml").write_text(MODEL)
        (folder / "tiny.yaml").write_text(PROFILE.replace("{options}", options).replace("rank: 0", f"rank: {rank}"))

    def __call__(self, verb: str, *args: str, dies: list[tuple[str, str]] | None = None) -> Ran:
        weights = ("--weights", str(self.weights)) if verb == "up" else ()
        return self.run(verb, *args, *weights, "--json", env={**self.env, "STANDIN_RULES": json.dumps(dies or [])})

    def starts(self) -> int:
        """How often the engine was started."""
        return (self.home / "state" / "instances" / "tiny" / "log").read_text().count("non-default args")


@pytest.fixture
def failing(mscli: Mscli, machine: Machine, home: Path, tmp_path: Path) -> Failing:
    program = home / "vllm" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    # A Python of its own: the packages of the one that runs the tests are not beside this vLLM.
    python = program.with_name("python")
    python.symlink_to(sys.executable)
    text = (SUPPORT / "vllm" / "failing_vllm.py").read_text().replace("/usr/bin/env python3", str(python), 1)
    program.write_text(text)
    program.chmod(0o755)
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "params.json").write_text("{}")
    (weights / "consolidated.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    made = Failing(mscli, home, {**machine("rtx4090"), "MSCLI_VLLM": str(program.parent.parent)}, weights)
    (home / "vllm" / "lib" / "python3.12" / "site-packages" / "vllm-0.32.0.dist-info").mkdir(parents=True)
    made.profile()
    return made


def changes(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Cause and change of every failed try."""
    return [(heal["cause"], heal["change"]) for heal in data["healed"] if not heal["why"].startswith("remembered: ")]


@pytest.mark.parametrize(
    ("dies", "options", "wanted"),
    [
        pytest.param([KV], "{}", [("oom_kv", "a context of at most 6,400 tokens")], id="KV cache"),
        pytest.param([BUSY], "{}", [("gpu_busy", "--gpu-memory-utilization 0.733")], id="busy"),
        pytest.param(
            [IMAGES, KV, GRAPHS],
            "{limit-mm-per-prompt: image=10}",
            [
                ("cli_flags", '--limit-mm-per-prompt {"image": 10}'),
                ("oom_kv", "a context of at most 6,400 tokens"),
                ("oom_kv", "--enforce-eager"),
            ],
            id="three in a row",
        ),
    ],
)
def test_what_vllm_dies_of_is_changed(
    failing: Failing, dies: list[tuple[str, str]], options: str, wanted: list[tuple[str, str]]
) -> None:
    failing.profile(options)
    up = failing("up", "tiny", dies=dies).data
    assert changes(up) == wanted
    assert up["instance"]["state"] == "ready"
    assert failing.starts() == len(wanted) + 1
    argv = up["plan"]["command"]["argv"]
    assert up["plan"]["context"] == int(argv[argv.index("--max-model-len") + 1]) == up["observed"]["context"]
    share = float(argv[argv.index("--gpu-memory-utilization") + 1])
    assert share == up["plan"]["settings"]["gpu_memory_utilization"], "the plan must say what runs"


def test_after_three_changes_it_stops_with_the_cause_and_what_was_tried(failing: Failing) -> None:
    failed = failing("up", "tiny", dies=[HOPELESS])
    assert (failed.code, failed.error["code"]) == (1, "start_failed")
    details = failed.error["details"]
    assert details["cause"] == "oom_kv"
    assert [heal["change"] for heal in details["healed"]] == [
        "a context of at most 32,768 tokens",
        "a context of at most 8,192 tokens",
        "a context of at most 1,024 tokens",
    ]
    assert "Tried before: a context of at most 32,768 tokens" in failed.error["message"]
    assert failing.starts() == 4
    assert failing.run("status").code == 3
    assert not (failing.home / "state" / "healed.jsonl").exists(), "what did not help must not be remembered"


def test_what_takes_a_person_is_not_tried_again(failing: Failing) -> None:
    failed = failing("up", "tiny", dies=[DRIVER])
    assert failed.error["details"]["cause"] == "driver_too_old"
    assert failing.starts() == 1


def test_a_cause_that_healing_has_no_change_for_is_told_with_its_remedy(failing: Failing) -> None:
    for healing in ([], ["--no-heal"]):
        failed = failing("up", "tiny", *healing, dies=[BITSANDBYTES])
        assert failed.error["details"]["cause"] == "bitsandbytes"
        assert "python -m bitsandbytes" in failed.error["hint"]
        assert "does not say why" not in failed.error["message"]


def test_a_context_that_was_asked_for_gives_way_nowhere_but_the_kv_type_does(failing: Failing) -> None:
    dies = [(r"--kv-cache-dtype fp8", KV[1])]
    up = failing("up", "tiny", "--ctx", "65536", dies=dies).data
    assert changes(up) == [("oom_kv", "fp8 KV")]
    assert up["instance"]["context"] == 65536


def test_with_context_and_kv_type_asked_for_the_margin_and_users_give_way(failing: Failing) -> None:
    dies = [(r"--max-num-seqs 1\b", KV[1])]
    failed = failing("up", "tiny", "--ctx", "65536", "--kv", "f16", dies=dies)
    tried = [heal["change"] for heal in failed.error["details"]["healed"]]
    assert [change.split(" 0.")[0] for change in tried] == [
        "a GPU memory utilization of",
        "at most 1 concurrent user",
        "--enforce-eager",
    ]


def test_what_worked_is_begun_with_until_a_start_without_it_ends_well(failing: Failing) -> None:
    failing("up", "tiny", dies=[KV])
    failing("down")
    again = failing("up", "tiny", dies=[KV]).data
    assert (changes(again), again["instance"]["context"]) == ([], 6400)
    failing("down")
    assert failing("up", "tiny", "--no-heal").data["instance"]["context"] == 65536
    failing("down")
    assert failing("up", "tiny").data["instance"]["context"] == 65536


def test_without_a_name_the_profile_that_was_chosen_is_stayed_with(failing: Failing) -> None:
    failing.profile(rank=900)
    rewrite(failing.env, lambda it: it["gpus"][0]["memory_mib"].update(used=12000))
    failing.env["STANDIN_FREES"] = "yes"  # so that a larger profile would be chosen at the second try
    up = failing("up", "--engine", "vllm", dies=[KV]).data
    assert (up["instance"]["profile"], up["instance"]["context"]) == ("tiny", 6400)
    assert up["reason"]
    assert failing("up", "--engine", "vllm").data["already"] is True
    failing("down")
    assert failing("up", "--engine", "vllm", "--dry-run").data["plan"]["profile"] != "tiny"


STAY = """
from dataclasses import replace
from mscli.lifecycle.decision import decide
from mscli.instances.records import Request
from mscli.paths import places
from mscli.planning.plan import Plan, Overrides

request = Request(None, None, None, None, Overrides())
first = decide(request, places())
other = next(it for it in first.choice.ranked if isinstance(it, Plan) and it.profile != first.profile.name)
stayed = decide(request, places(), stay=replace(first.choice, chosen=other))
print(stayed.profile.name == stayed.plan.profile == other.profile, stayed.choice.chosen.profile == other.profile)
"""


def test_a_choice_to_stay_with_is_not_made_anew(machine: Machine, user_env: dict[str, str]) -> None:
    assert child(STAY, {**user_env, **machine("rtx4090")}) == "True True\n"
