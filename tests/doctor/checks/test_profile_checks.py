"""The area `profile`: plans on described machines, real engines and files, and options that do not go with a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.doctor.visits import Doctor
from support.run_mscli import Mscli
from support.weights.hub_profile import own_profile

from mscli.doctor.checks.check import CheckContext, Finding
from mscli.doctor.checks.profile import CHECKS
from mscli.lifecycle.decision import chosen
from mscli.paths import places

PROFILE = ("--only", "profile")
Machine = Callable[..., dict[str, str]]


def look(home: Path, check: str, name: str | None = "mine") -> list[Finding]:
    """What one check finds on the user's profile, asked about by name or (None) at a plain visit."""
    here = places({"MSCLI_HOME": str(home)})
    ctx = CheckContext(here, env={}, chosen=chosen(name, None, here) if name else None)
    return [seen for each in CHECKS if each.id == check for seen in each.run(ctx)]


def write(home: Path, text: str, name: str = "mine") -> None:
    path = home / "config" / "profiles" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"title: A profile of mine\n{text}")


VLLM = "engine: vllm\nmodel: mistral-small-3.1\nvariant: {variant}\nimages: {images}\noptions: {options}\n"
LLAMA = "engine: llama.cpp\nmodel: mistral-small-3.1\nvariant: q4_k_m\nimages: {images}\noptions: {options}\n"


def test_without_a_profile_only_the_users_own_are_looked_at(here: Doctor) -> None:
    seen = here(*PROFILE)
    assert seen.code == 0
    assert [(found["id"], found["status"]) for found in seen.findings] == [
        ("profile.file", "skipped"),
        ("profile.plan", "skipped"),
    ]


def test_the_rehearsal_is_healthy(here: Doctor) -> None:
    seen = here("rehearsal", *PROFILE)
    assert seen.code == 0
    assert {found["status"] for found in seen.findings} == {"ok", "skipped"}, seen.findings


def test_a_profile_that_fits_shows_its_figures(doctor: Doctor, machine: Machine) -> None:
    found = doctor("small-gguf-q4", *PROFILE, env=machine("rtx4090")).good("profile.plan")
    assert "tokens" in found["seen"]
    assert any("weights 13." in line and "KV" in line and "left of" in line for line in found["evidence"])


@pytest.mark.parametrize(
    ("profile", "card", "code"),
    [
        ("small-bf16", "rtx4090", "oom_weights"),
        ("small-gguf-q4", "rtx4090-full", "gpu_busy"),
        ("small-bf16", "v100-16", "compute_capability"),
        ("small-q4", "driver-535", "driver_too_old"),
        ("small-gguf-q4", "driver-not-loaded", "no_driver"),
        ("small-gguf-q4", "driver-mismatch", "nvml_mismatch"),
        ("small-gguf-q4", "no-driver", "nvml_not_found"),
        ("small-bf16-2gpu", "h100-mig", "mig"),
        ("small-bf16-2gpu", "rtx4090-x2-one-lost", "xid"),
        ("small-bf16-2gpu", "gpu-no-permission", None),
        ("small-bf16-2gpu", "h100-80", "oom_weights"),
    ],
)
def test_a_profile_that_does_not_fit_is_named_with_its_cause(
    doctor: Doctor, machine: Machine, profile: str, card: str, code: str | None
) -> None:
    seen = doctor(profile, *PROFILE, env=machine(card))
    found = seen.bad("profile.plan")
    assert (seen.code, found["status"], found["code"]) == (5, "fail", code), found


def test_who_holds_the_gpu_is_named(doctor: Doctor, machine: Machine) -> None:
    found = doctor("small-gguf-q4", *PROFILE, env=machine("rtx4090-full")).bad("profile.plan")
    assert "in use by PID" in str(found["evidence"])


def test_gpus_that_are_hidden(doctor: Doctor, machine: Machine) -> None:
    env = machine("rtx4090") | {"CUDA_VISIBLE_DEVICES": ""}
    assert doctor("small-gguf-q4", *PROFILE, env=env).bad("profile.plan")["code"] == "visible_devices"
    env = machine("rtx4090-x2") | {"CUDA_VISIBLE_DEVICES": "0"}
    assert doctor("small-bf16-2gpu", *PROFILE, env=env).bad("profile.plan")["code"] == "visible_devices"


def test_a_context_for_which_the_cache_has_no_room(doctor: Doctor, home: Path, machine: Machine) -> None:
    write(home, LLAMA.format(images=0, options={}) + "context: {floor: 120000, target: 131072, cap: 131072}\n")
    found = doctor("mine", *PROFILE, env=machine("rtx4090")).bad("profile.plan")
    assert (found["status"], found["code"]) == ("fail", "oom_kv")
    assert "--ctx" in str(found["command"]), "the nearest that works must be typeable"


def test_a_context_shorter_than_the_profile_aims_for(doctor: Doctor, home: Path, machine: Machine) -> None:
    write(home, LLAMA.format(images=0, options={}) + "context: {floor: 8192, target: 131072, cap: 131072}\n")
    found = doctor("mine", *PROFILE, env=machine("rtx4090")).bad("profile.context")
    assert (found["status"], found["code"]) == ("warn", "oom_kv")
    assert "131,072" in found["seen"]


def test_host_memory_that_does_not_suffice(here: Doctor, home: Path) -> None:
    write(home, LLAMA.format(images=0, options={}) + "device: cpu\nneeds: {ram_bytes: 4000 GiB}\n")
    found = here("mine", *PROFILE).bad("profile.plan")
    assert (found["status"], found["code"]) == ("fail", "host_ram")


def test_an_engine_that_is_not_here(doctor: Doctor, machine: Machine, tmp_path: Path) -> None:
    env = machine("h100-80") | {"PATH": str(tmp_path)}
    found = doctor("small-fp8", *PROFILE, env=env).bad("profile.engine")
    assert (found["status"], found["code"]) == ("warn", "engine_missing"), "`mscli up` installs it: no fault"
    assert "`mscli up` installs vLLM" in found["remedy"]
    assert found["command"] == "mscli engines install vllm"


def test_an_engine_that_mscli_cannot_install_either(doctor: Doctor, machine: Machine, tmp_path: Path) -> None:
    """vLLM's packages need a driver with CUDA 12."""
    env = machine("h100-80", lambda told: told.update(driver="520.61.05", cuda="11.8")) | {"PATH": str(tmp_path)}
    found = doctor("small-fp8", *PROFILE, env=env).bad("profile.engine")
    assert found["status"] == "fail"
    assert "mscli cannot install it here" in found["seen"]


def test_an_engine_that_is_too_old(doctor: Doctor, machine: Machine, tmp_path: Path) -> None:
    environment = tmp_path / "old"
    packages = environment / "lib" / "python3.11" / "site-packages"
    (packages / "vllm-0.7.3.dist-info").mkdir(parents=True)
    (packages / "vllm-0.7.3.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.7.3\n")
    (packages / "vllm").mkdir()
    (packages / "vllm" / "__init__.py").touch()
    (environment / "bin").mkdir()
    for name in ("vllm", "python"):
        (environment / "bin" / name).write_text("#!/bin/sh\nexit 1\n")
        (environment / "bin" / name).chmod(0o755)
    env = machine("h100-80") | {"MSCLI_VLLM": str(environment)}
    found = doctor("small-fp8", *PROFILE, env=env).bad("profile.engine")
    assert (found["status"], found["code"]) == ("fail", "version_backend_old"), found
    assert "0.7.3" in found["seen"]


def test_a_broken_profile_of_the_user_is_named_at_every_visit(here: Doctor, home: Path) -> None:
    write(home, "engine: llama.ccp\nmodel: mistral-small-3.1\nvariant: q4_k_m\n")
    found = here(*PROFILE).bad("profile.file")
    assert (found["status"], found["code"]) == ("warn", None)
    assert "mine.yaml" in found["seen"]
    assert found["command"].startswith("mscli profiles validate ")


def test_good_profiles_of_the_user_are_counted(here: Doctor, home: Path) -> None:
    own_profile(home)
    assert here(*PROFILE).good("profile.file")["seen"].startswith("2 user files")


def test_damaged_pins_are_named(here: Doctor, home: Path) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config" / "revisions.json").write_text("{")
    found = here(*PROFILE).bad("profile.file")
    assert found["status"] == "fail"
    assert "revisions.json" in found["seen"]


BAD_OPTIONS = [
    (
        "profile.format",
        VLLM.format(variant="bf16", images=0, options={"load-format": "safetensors"}),
        "tokenizer_format",
    ),
    ("profile.format", VLLM.format(variant="bf16", images=0, options={"tokenizer_mode": "hf"}), "tokenizer_format"),
    ("profile.format", VLLM.format(variant="fp8", images=0, options={"config-format": "mistral"}), "tokenizer_format"),
    ("profile.format", VLLM.format(variant="fp8", images=2, options={"tokenizer-mode": "mistral"}), "tokenizer_format"),
    ("profile.sampling", LLAMA.format(images=0, options={"temp": 0.8}), "sampling"),
    ("profile.vision", LLAMA.format(images=0, options={"mmproj": "p.gguf"}), "vision"),
    ("profile.vision", LLAMA.format(images=2, options={"no-mmproj": "true"}), "vision"),
    ("profile.tools", VLLM.format(variant="bf16", images=0, options={"tool-call-parser": "hermes"}), "tools"),
    ("profile.tools", LLAMA.format(images=0, options={"chat-template": "chatml"}), "tools"),
]


@pytest.mark.parametrize(("check", "text", "code"), BAD_OPTIONS)
def test_an_option_that_does_not_go_with_the_model(home: Path, check: str, text: str, code: str) -> None:
    write(home, text)
    found = look(home, check)
    assert [(seen.status, seen.code) for seen in found] == [("fail", code)], found
    assert str(home / "config" / "profiles" / "mine.yaml") in found[0].evidence
    plain = look(home, check, None)
    assert [(seen.status, seen.code) for seen in plain] == [("warn", code)], "at a plain visit it is worth a warning"


GOOD_OPTIONS = [
    VLLM.format(variant="bf16", images=4, options={"tokenizer-mode": "mistral", "tool-call-parser": "mistral"}),
    VLLM.format(variant="fp8", images=0, options={"tokenizer-mode": "mistral", "load-format": "auto"}),
    LLAMA.format(images=2, options={"temp": 0.2}),
]


@pytest.mark.parametrize("text", GOOD_OPTIONS)
def test_options_that_go_with_the_model(home: Path, text: str) -> None:
    write(home, text)
    for check in ("profile.format", "profile.sampling", "profile.vision", "profile.tools"):
        assert [seen.status for seen in look(home, check)] == ["ok"], check
        assert look(home, check, None) == []


def test_a_temperature_in_vllms_generation_config_is_read(home: Path) -> None:
    options = "{override-generation-config: '" + json.dumps({"temperature": 1.0}) + "'}"
    write(home, _vllm(options))
    assert [seen.code for seen in look(home, "profile.sampling")] == ["sampling"]


def _vllm(options: str) -> str:
    return f"engine: vllm\nmodel: mistral-small-3.1\nvariant: bf16\noptions: {options}\n"


def test_files_of_the_other_format_are_no_use(here: Doctor, home: Path, tmp_path: Path) -> None:
    write(home, _vllm("{}"))
    repository = tmp_path / "hub" / "models--mistralai--Mistral-Small-3.1-24B-Instruct-2503"
    snapshot = repository / "snapshots" / ("d" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("d" * 40)
    header = json.dumps({"t": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    content = len(header).to_bytes(8, "little") + header + b"\0\0"
    (snapshot / "consolidated.safetensors").write_bytes(content)
    (snapshot / "params.json").write_text("{}")
    (snapshot / "tekken.json").write_text("{}")
    assert [seen["status"] for seen in here("mine", *PROFILE).of("profile.format")] == ["ok"]
    (snapshot / "tekken.json").unlink()
    seen = here("mine", "--only", "weights", "--only", "profile")
    wrong = {found["code"] for found in seen.findings if found["status"] == "fail"}
    assert wrong & {"tokenizer_format", "corrupt_weights"}, seen.findings
    assert "tekken.json" in str(seen.findings)


def test_the_whole_visit_of_a_healthy_machine_is_quick(mscli: Mscli, doctor: Doctor) -> None:
    seen = doctor("rehearsal")
    assert seen.seconds < 3.0
    mine = ("weights", "network", "ports", "instances", "profile")
    bad = [found for found in seen.findings if found["area"] in mine and found["status"] in ("fail", "crashed")]
    assert bad == []


def test_what_up_says_of_a_profile_has_the_same_cause(mscli: Mscli, machine: Machine) -> None:
    ran = mscli("up", "small-bf16", "--dry-run", "--json", env=machine("rtx4090"))
    assert (ran.code, ran.error["details"]["cause"]) == (4, "oom_weights")
    listed: Any = mscli("plan", "small-bf16", "--json", env=machine("rtx4090")).data["profiles"]
    assert listed[0]["cause"] == "oom_weights"


def test_three_cards_of_four_heads_groups(mscli: Mscli, machine: Machine) -> None:
    ran = mscli("up", "small-fp8", "--gpus", "0,1,2", "--dry-run", "--json", env=machine("h100-x8"))
    assert (ran.code, ran.error["details"]["cause"]) == (4, "tp_divisibility")
    assert "--gpus 0,1" in ran.error["hint"]
