"""What a start took on the GPU: proved, learnt from, and waited for at the end; on described machines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import SUPPORT
from support.own_files import profile_text
from support.run_mscli import Mscli, Ran

Machine = Callable[..., dict[str, str]]
MIB = 2**20


@pytest.fixture
def on_gpu(mscli: Mscli, machine: Machine, home: Path, tmp_path: Path, user_env: dict[str, str]) -> Callable[..., Ran]:
    """mscli on one RTX 4090 with a llama-server on PATH, and a profile `tiny` that runs on the GPU."""
    programs = tmp_path / "bin"
    programs.mkdir()
    server = programs / "llama-server"
    text = (SUPPORT / "llamacpp" / "gpu_server.py").read_text().replace("/usr/bin/env python3", sys.executable, 1)
    server.write_text(text)
    server.chmod(0o755)
    profiles = home / "config" / "profiles"
    profiles.mkdir(parents=True)
    tiny = profile_text("rehearsal").replace("device: cpu", "device: gpu").replace("images: 4", "images: 0")
    tiny = tiny.replace("gpus: []", "gpus: [1]")
    (profiles / "tiny.yaml").write_text(tiny)
    env = {**machine("rtx4090"), "PATH": f"{programs}:{user_env['PATH']}"}

    def run(*args: str, more: dict[str, str] | None = None) -> Ran:
        return mscli(*args, env={**env, **(more or {})})

    return run


def test_what_was_taken_is_proved_and_learnt(on_gpu: Callable[..., Ran], home: Path) -> None:
    first = on_gpu("plan", "tiny", "--explain", "--json").data
    assert first["learned"] == []
    up = on_gpu("up", "tiny", "--json").data
    assert up["observed"]["gpu_layers"] == [3, 3]
    assert up["taken_bytes"] == {"0": 900 * MIB}
    assert up["instance"]["gpus"] == [0]
    assert (home / "state" / "observations.jsonl").read_text().count("\n") == 1
    on_gpu("down")
    second = on_gpu("plan", "tiny", "--explain", "--json").data
    assert "observed in the last of 1 start;" in second["learned"][0]
    before, after = first["profiles"][0]["memory"][0], second["profiles"][0]["memory"][0]
    assert after["runtime_bytes"] - before["runtime_bytes"] > 300 * MIB, "the next plan counts what was really taken"


def test_down_waits_until_the_gpu_memory_is_back(on_gpu: Callable[..., Ran]) -> None:
    slow = {"SERVER_RETURNS_S": "1.5"}
    on_gpu("up", "tiny", more=slow)
    held = on_gpu("gpus", "--json").data["gpus"][0]
    assert held["holders"][0]["used_bytes"] == 900 * MIB
    down = on_gpu("down", "--json").data["stopped"][0]
    assert down["memory_returned_bytes"] == 900 * MIB
    assert down["memory_seconds"] > 1.0
    assert on_gpu("gpus", "--json").data["gpus"][0]["holders"] == []


def test_layers_that_fell_to_the_cpu_fail_the_start(on_gpu: Callable[..., Ran]) -> None:
    fallen = {"SERVER_LAYERS": "0/3"}
    refused = on_gpu("up", "tiny", "--json", more=fallen)
    assert (refused.code, refused.error["details"]["cause"]) == (1, "cpu_fallback")
    assert "0 of 3 layers" in refused.error["message"]
    assert on_gpu("status").code == 3
    assert on_gpu("up", "tiny", "--no-require-gpu", "--json", more=fallen).code == 0


def test_a_second_instance_is_planned_beside_the_first(on_gpu: Callable[..., Ran]) -> None:
    on_gpu("up", "tiny")
    plan = on_gpu("plan", "small-q4", "--json").data["profiles"][0]
    alone = on_gpu("plan", "small-q4", "--on", "RTX 4090", "--json").data["profiles"][0]
    assert plan["context"] < alone["context"]


def test_replacing_counts_what_comes_back(on_gpu: Callable[..., Ran]) -> None:
    alone = on_gpu("up", "tiny", "--json").data["plan"]["memory"][0]
    again = on_gpu("up", "tiny", "--ctx", "8192", "--replace", "--json").data
    assert again["plan"]["memory"][0]["free_bytes"] == alone["free_bytes"]
    assert again["instance"]["context"] == 8192


def test_the_doctor_names_the_instance_that_holds_a_gpu(on_gpu: Callable[..., Ran]) -> None:
    on_gpu("up", "tiny")
    findings = on_gpu("doctor", "--only", "gpu", "--json").data["findings"]
    (held,) = [finding for finding in findings if finding["id"] == "gpu.free"]
    assert held["status"] == "ok"
    assert "instance tiny" in held["seen"]
