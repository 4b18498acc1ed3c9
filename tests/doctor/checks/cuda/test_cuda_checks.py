"""CUDA started for real in a child process, on a libcuda that answers, fails, hangs or crashes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.doctor.doctor_site import RELEASE, Site


def failing(call: str, answer: Any) -> Any:
    """An edit that orders what a call of CUDA answers."""
    return lambda one: one.update(cuda_errors={call: answer})


def on_second(**keys: Any) -> Any:
    """An edit that changes the second of two GPUs alike."""

    def edit(one: Any) -> None:
        (gpu,) = one["gpus"]
        gpu.pop("count")
        one["gpus"] = [gpu, {**gpu, **keys}]

    return edit


def test_cuda_that_starts_is_named_with_its_devices(site: Site) -> None:
    found = site.look("rtx4090-x2", "cuda")
    assert found.fails == found.warnings == []
    assert "2 of 2 devices" in found.one("cuda.start")["seen"]
    assert found.verdict("cuda.devices") == ("ok", None)


def test_a_driver_without_libcuda(site: Site, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "libcuda.so.1").touch()  # hides a real one
    found = site.look("rtx4090", "cuda", env={"LD_LIBRARY_PATH": str(empty)}, cuda=False)
    assert found.fails == [("cuda.library", "nvml_not_found")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (2, "gpu_busy"),
        (34, "driver_vs_compat"),
        (35, "driver_too_old"),
        (36, "driver_too_old"),
        (46, "gpu_busy"),
        (100, "no_driver"),
        (101, "visible_devices"),
        (214, "ecc"),
        (304, "permissions"),
        (719, "xid"),
        (802, "fabric_manager"),
        (803, "driver_vs_compat"),
        (804, "driver_vs_compat"),
        (999, "suspend"),
        (700001, None),
    ],
)
def test_cuda_that_does_not_start(site: Site, error: int, code: str | None) -> None:
    found = site.look("rtx4090", "cuda", failing("cuInit", error))
    assert found.fails == [("cuda.start", code)]
    assert str(error) in found.one("cuda.start")["seen"]


def test_no_device_in_a_container_is_the_containers_fault(site: Site) -> None:
    site.container()
    assert site.look("rtx4090", "cuda", failing("cuInit", 100)).fails == [("cuda.start", "docker_gpu")]


def test_a_suspend_in_the_kernels_log_is_shown_for_error_999(site: Site) -> None:
    site.kernel_says("[ 5000.000000] PM: suspend entry (deep)")
    found = site.look("rtx4090", "cuda", failing("cuInit", 999)).one("cuda.start")
    assert "the machine was suspended" in found["seen"]
    assert "PM: suspend entry (deep)" in found["evidence"]
    assert "nvidia_uvm" in found["command"]


@pytest.mark.parametrize("call", ["cuDevicePrimaryCtxRetain", "cuMemAlloc_v2"])
def test_one_device_of_two_that_cannot_be_used(site: Site, call: str) -> None:
    found = site.look("rtx4090-x2", "cuda", on_second(cuda_errors={call: 46}))
    failed, good = found.of("cuda.start")
    assert (failed["status"], failed["code"]) == ("fail", "gpu_busy")
    assert "CUDA device 1" in failed["seen"]
    assert call in failed["seen"]
    assert "1 of 2 devices" in good["seen"]


def test_a_full_gpu_is_not_made_fuller(site: Site) -> None:
    """A context of some hundred MiB could cost the engine that fills it its next allocation."""
    full = {"memory_mib": {"total": 24564, "used": 23500, "reserved": 386}, "cuda_errors": {"cuMemAlloc_v2": 2}}
    found = site.look("rtx4090-x2", "cuda", on_second(**full))
    assert found.fails == []
    assert "1 of 2 devices; 1 not tried (memory full)" in found.one("cuda.start")["seen"]
    alone = site.look("rtx4090-full", "cuda")
    assert alone.one("cuda.start")["status"] == "skipped"


@pytest.mark.parametrize("call", ["cuInit", "cuMemAlloc_v2"])
def test_cuda_that_hangs_is_ended_and_told(site: Site, call: str) -> None:
    found = site.look("rtx4090", "cuda", failing(call, "hang"), patience_s=1.0)
    assert found.fails == [("cuda.start", "xid")]
    assert "hangs" in found.one("cuda.start")["seen"]


def test_a_libcuda_that_crashes_takes_nothing_along(site: Site) -> None:
    found = site.look("rtx4090", "cuda", failing("cuInit", "crash"))
    assert found.fails == [("cuda.start", "xid")]
    assert "cuInit" in found.one("cuda.start")["seen"]
    assert found.crashed == []


# ---- which libcuda ----


def copied(library: Path, folder: Path, name: str = "libcuda.so.1") -> str:
    folder.mkdir(parents=True)
    shutil.copy(library / "libcuda.so.1", folder / name)
    if name != "libcuda.so.1":
        (folder / "libcuda.so.1").symlink_to(name)
    return str(folder)


def test_cuda_compat_before_the_driver(site: Site, cuda_library: Path, tmp_path: Path) -> None:
    compat = copied(cuda_library, tmp_path / "cuda-12.9" / "compat")
    found = site.look("rtx4090", "cuda", failing("cuInit", 803), env={"LD_LIBRARY_PATH": compat})
    assert found.fails == [("cuda.start", "driver_vs_compat")]
    assert compat in found.one("cuda.library")["seen"]


def test_cuda_compat_that_works_is_no_fault(site: Site, cuda_library: Path, tmp_path: Path) -> None:
    compat = copied(cuda_library, tmp_path / "cuda-12.9" / "compat")
    found = site.look("rtx4090", "cuda", env={"LD_LIBRARY_PATH": compat})
    assert found.fails == []
    assert compat in found.one("cuda.library")["seen"]


def test_a_libcuda_of_another_release_than_the_module(site: Site, cuda_library: Path, tmp_path: Path) -> None:
    site.module()
    other = copied(cuda_library, tmp_path / "other", "libcuda.so.570.124.06")
    found = site.look("rtx4090", "cuda", env={"LD_LIBRARY_PATH": other})
    assert found.fails == [("cuda.library", "driver_vs_compat")]
    assert "570.124.06" in found.one("cuda.library")["seen"]
    assert RELEASE in found.one("cuda.library")["seen"]


def test_a_linux_libcuda_inside_wsl(site: Site) -> None:
    site.wsl()
    assert site.look("rtx4090-wsl", "cuda").fails == [("cuda.library", "wsl")]


# ---- beside NVML ----


def test_cuda_that_works_where_nvml_does_not_is_told(site: Site) -> None:
    """As under one WSL: vLLM then finds no device, although CUDA works."""
    site.wsl()
    found = site.look("rtx4090", "driver,cuda", lambda one: one.update(init_error=9, cuda_errors={"cuInit": 0}))
    assert ("driver.nvml", "wsl") in found.fails
    assert found.one("cuda.start")["status"] == "ok"
    assert "NVML" in found.one("cuda.start")["seen"]


def test_a_mismatch_is_not_told_twice(site: Site) -> None:
    site.module()
    found = site.look("driver-mismatch", "driver,cuda")
    assert found.fails == [("driver.nvml", "nvml_mismatch")]
    assert "803" in found.one("cuda.start")["seen"]


def test_fewer_devices_than_nvml_shows(site: Site) -> None:
    found = site.look("rtx4090-x2", "cuda", on_second(cuda_hidden=True))
    assert found.verdict("cuda.devices") == ("warn", "visible_devices")


def test_less_memory_than_nvml_shows(site: Site) -> None:
    found = site.look("rtx4090-x2", "cuda", on_second(cuda_memory_mib=8192))
    assert found.verdict("cuda.devices") == ("warn", None)
    assert "device 1: 8.0 GiB of 24.0 GiB" in found.one("cuda.devices")["seen"]


# ---- the environment ----


@pytest.mark.parametrize("value", [":/usr/local/cuda", "/nowhere/cuda", "{root}"])
def test_a_cuda_home_that_is_no_toolkit(site: Site, value: str) -> None:
    found = site.look("rtx4090", "cuda", env={"CUDA_HOME": value.replace("{root}", str(site.root))})
    assert found.verdict("cuda.toolkit") == ("warn", "nvcc_jit")


def test_a_cuda_home_that_is_one(site: Site) -> None:
    nvcc = site.put("usr/local/cuda/bin/nvcc", "#!/bin/sh\n")
    nvcc.chmod(0o755)
    found = site.look("rtx4090", "cuda", env={"CUDA_HOME": str(site.root / "usr/local/cuda")})
    assert found.verdict("cuda.toolkit") == ("ok", None)


def test_stubs_in_the_library_path_behind_the_driver(site: Site, cuda_library: Path, tmp_path: Path) -> None:
    stubs = copied(cuda_library, tmp_path / "lib64" / "stubs")
    found = site.look("rtx4090", "cuda", env={"LD_LIBRARY_PATH": f"{cuda_library}:{stubs}"})
    assert found.verdict("cuda.paths") == ("warn", "driver_vs_compat")


def test_an_empty_entry_in_the_library_path(site: Site, cuda_library: Path) -> None:
    found = site.look("rtx4090", "cuda", env={"LD_LIBRARY_PATH": f"{cuda_library}:"})
    assert found.verdict("cuda.paths") == ("warn", None)
