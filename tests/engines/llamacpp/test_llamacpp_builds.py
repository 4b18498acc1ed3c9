"""Which of llama.cpp's official builds is taken: by the system's glibc, the driver's CUDA and the GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.machines.described_machines import inventory_of

from mscli.engines.engine import Installation
from mscli.engines.llamacpp.installation import build_for, locate_for
from mscli.errors import Code, MscliError
from mscli.inventory.inventory import Inventory
from mscli.lifecycle.snapshot import unfit

Machine = Callable[..., dict[str, str]]
NEW, OLD = (2, 39), (2, 35)


def on(name: str, machine: Machine, cuda: str | None = None, capability: str | None = None) -> Inventory:
    here = inventory_of(name, machine)
    devices = tuple(replace(each, compute_capability=capability or each.compute_capability) for each in here.devices)
    return replace(here, cuda=cuda or here.cuda, devices=devices)


@pytest.mark.parametrize(
    ("name", "cuda", "capability", "glibc", "vulkan", "taken"),
    [
        ("rtx4090", "13.0", None, NEW, False, "CUDA 13"),  # machine code for 8.9: any driver of that CUDA
        ("rtx4090", "12.4", None, NEW, False, "CUDA 12"),
        ("rtx3090", "13.4", None, NEW, False, "CUDA 13"),
        ("h100-80", "13.0", None, NEW, False, "CUDA 12"),  # the driver compiles for 9.0, and 13.0 cannot compile 13.4's
        ("h100-80", "13.4", None, NEW, False, "CUDA 13"),
        ("h100-mig", "13.4", None, NEW, False, "CUDA 13"),
        ("t4", "12.8", None, NEW, False, "CUDA 12"),
        ("t4", "12.4", None, NEW, True, "Vulkan"),
        ("v100-16", "13.0", None, NEW, True, "CUDA 12"),  # CUDA 13 has dropped everything below 7.5
        ("v100-16", "13.0", "6.1", NEW, True, "CUDA 12"),
        ("rtx4090", "13.0", None, OLD, True, "Vulkan"),
    ],
)
def test_the_build_that_the_system_the_driver_and_the_gpus_can_run(
    name: str, cuda: str, capability: str | None, glibc: tuple[int, int], vulkan: bool, taken: str, machine: Machine
) -> None:
    assert build_for(on(name, machine, cuda, capability), "x64", glibc, vulkan).name == taken


def test_arm_has_one_build_with_cuda(machine: Machine) -> None:
    assert build_for(on("gb10", machine, "13.0"), "arm64", NEW, False).name == "CUDA 13"
    assert build_for(on("gb10", machine, "12.8"), "arm64", NEW, True).name == "Vulkan"


@pytest.mark.parametrize(
    ("name", "glibc", "vulkan", "said"),
    [
        ("rtx4090", OLD, False, "CUDA 13: needs glibc 2.39, this machine has 2.35"),
        ("rtx4090", None, True, "needs glibc 2.39, this machine has another C library"),
        ("h100-mig", OLD, True, "Vulkan does not see MIG instances"),
        ("rtx4090", (2, 31), True, "Vulkan: needs glibc 2.35, this machine has 2.31"),
    ],
)
def test_where_none_runs_each_says_what_it_would_need(
    name: str, glibc: tuple[int, int] | None, vulkan: bool, said: str, machine: Machine
) -> None:
    with pytest.raises(MscliError) as refused:
        build_for(on(name, machine), "x64", glibc, vulkan)
    assert refused.value.code is Code.ENGINE_UNSUPPORTED
    assert said in refused.value.message
    assert "libvulkan1" in refused.value.hint


def test_the_wheel_for_the_cpu_is_no_engine_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("MSCLI_HOME", "/nonexistent")
    assert locate_for("cpu").kind == "wheel"
    with pytest.raises(MscliError, match="built for the CPU") as refused:
        locate_for("gpu")
    assert refused.value.code is Code.ENGINE_MISSING
    assert "mscli engines install llama.cpp" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "driver", "built", "said"),
    [
        ("rtx4090", "12.4", 13, "the driver offers CUDA 12.4"),
        ("v100-16", "13.0", 13, "no code for Tesla V100-SXM2-16GB (7.0)"),
        ("v100-16", "13.0", 12, None),
        ("rtx4090", "13.0", 12, None),
        ("rtx4090", "13.0", None, None),
    ],
)
def test_a_copy_is_judged_by_the_cuda_that_it_was_built_with(
    name: str, driver: str, built: int | None, said: str | None, machine: Machine, tmp_path: Path
) -> None:
    copy = Installation("vllm", ("vllm", "serve"), "0.32.0", "program", tmp_path / "vllm", gpu=True, cuda=built)
    refused = unfit(copy, on(name, machine, driver))
    assert (refused.message.endswith(said) if said else True) if refused else said is None


def test_a_copy_without_gpu_code_is_refused_with_what_to_do(machine: Machine, tmp_path: Path) -> None:
    copy = Installation("ollama", ("ollama",), "0.32.0", "program", tmp_path / "ollama", gpu=False)
    refused = unfit(copy, on("rtx4090", machine))
    assert refused is not None
    assert refused.details["cause"] == "backend_no_gpu_build"
    assert "has no GPU code" in refused.message
