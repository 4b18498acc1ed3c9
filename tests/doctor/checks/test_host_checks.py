"""The host around the GPUs: what an engine needs of it, each thing taken away once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.doctor.doctor_site import KERNEL, Found, Site
from support.machines.nvml_machines import NO_DRIVER
from support.run_mscli import Mscli
from support.small_disk import small_disk

GIB = 2**30


def look(site: Site) -> Found:
    return site.look(NO_DRIVER, "host")


def test_a_healthy_host(site: Site) -> None:
    site.program("python3", f'exec {sys.executable} "$@"')
    found = look(site)
    wrong = [finding for finding in found.findings if finding["status"] in ("fail", "warn", "crashed")]
    assert [finding["id"] for finding in wrong if finding["id"] != "host.limits"] == [], wrong  # the tester's own


# ---- memory ----


def test_ram_that_is_nearly_used_up(site: Site) -> None:
    site.put("proc/meminfo", "MemTotal: 65806948 kB\nMemAvailable: 2097152 kB\nSwapFree: 0 kB\n")
    found = look(site).one("host.ram")
    assert (found["status"], found["code"]) == ("warn", "host_ram")
    assert found["evidence"] == ["free swap: 0 MiB"]


def test_a_containers_limit_counts_not_the_machines_ram(site: Site) -> None:
    site.container()
    site.put("sys/fs/cgroup/memory.max", f"{3 * GIB}\n")
    site.put("sys/fs/cgroup/memory.current", f"{GIB}\n")
    found = look(site).one("host.ram")
    assert (found["status"], found["code"]) == ("warn", "host_ram")
    assert "container or cgroup limit" in found["seen"]


@pytest.mark.parametrize("words", ["Out of memory", "Memory cgroup out of memory"])
def test_an_engine_that_the_kernel_killed(site: Site, words: str) -> None:
    line = f"{words}: Killed process 6154 (VLLM::EngineCor) total-vm:18109076kB, anon-rss:14095848kB"
    site.kernel_says(f"[89000.000000] {line}")
    found = look(site).one("host.killed")
    assert (found["status"], found["code"]) == ("warn", "host_ram")
    assert "VLLM::EngineCor (PID 6154)" in found["seen"]
    assert found["evidence"] == [line]


def test_what_was_killed_days_ago_is_over(site: Site) -> None:
    site.put("proc/uptime", "900000.00 1.0\n")
    site.kernel_says("[  100.000000] Out of memory: Killed process 6154 (python) total-vm:18109076kB")
    assert look(site).verdict("host.killed") == ("ok", None)


def test_a_kernel_log_that_may_not_be_read_tells_nothing(site: Site) -> None:
    site.program("dmesg", "exit 1")
    assert look(site).verdict("host.killed") == ("skipped", None)


# ---- /dev/shm ----


@pytest.fixture
def small_shm(site: Site) -> Iterator[Path]:
    """A /dev/shm of Docker's default size, which only root can mount."""
    with small_disk(site.root / "dev/shm", "65m") as folder:
        yield folder


def test_dockers_default_shm_is_too_little_for_several_gpus(site: Site, small_shm: Path) -> None:
    assert look(site).verdict("host.shm") == ("warn", "shm")


def test_a_shm_that_is_full_names_what_fills_it(site: Site, small_shm: Path) -> None:
    (small_shm / "nccl-4f1c22").write_bytes(bytes(40 * 2**20))
    found = look(site).one("host.shm")
    assert (found["status"], found["code"]) == ("fail", "shm")
    assert found["evidence"] == ["40 MiB nccl-4f1c22"]


def test_segments_that_killed_engines_left_behind(site: Site) -> None:
    for number in range(3):
        with (site.root / f"dev/shm/psm_{number}").open("wb") as file:
            file.truncate(GIB)
    found = look(site).one("host.shm")
    if "segments left by engines" not in found["seen"]:
        pytest.skip(f"too little room for temporary files here to tell: {found['seen']}")
    assert (found["status"], found["code"]) == ("warn", "shm")
    assert len(found["evidence"]) == 3


def test_a_machine_without_shm(site: Site) -> None:
    (site.root / "dev/shm").rmdir()
    assert look(site).verdict("host.shm") == ("fail", "shm")


# ---- limits, CPU, Python ----


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [("-Hn 768", ("fail", "ulimit")), ("-Hn 4096", ("warn", "ulimit")), ("-Sv 33554432", ("fail", "ulimit"))],
    ids=["few open files", "not many open files", "address space"],
)
def test_limits_of_the_shell_that_starts_mscli(
    mscli: Mscli, user_env: dict[str, str], limit: str, verdict: tuple[str, str]
) -> None:
    lowered = f"ulimit {'-Sn 512; ulimit ' if 'n' in limit else ''}{limit} && exec {sys.executable} -m mscli"
    done = subprocess.run(
        ["bash", "-c", f"{lowered} doctor --json --only host"], env=user_env, capture_output=True, text=True, timeout=60
    )
    assert f'"code":"{verdict[1]}"' in done.stdout.replace(" ", ""), done.stdout + done.stderr
    assert (done.returncode == 5) == (verdict[0] == "fail"), done.stdout


def test_a_cpu_without_avx2(site: Site) -> None:
    site.put("proc/cpuinfo", "model name : QEMU Virtual CPU\nflags : fpu sse2 avx\n")
    found = look(site).one("host.cpu")
    assert (found["status"], found["code"]) == ("warn", "build")
    assert "avx2" in found["seen"]


def test_an_arm_cpu_is_not_judged_by_x86_extensions(site: Site) -> None:
    site.put("proc/cpuinfo", "Features : fp asimd\n")
    assert look(site).verdict("host.cpu") == ("ok", None)


def test_neither_uv_nor_python(site: Site) -> None:
    assert look(site).verdict("host.python") == ("warn", "python_env")


def test_a_python_without_venv_as_debian_has_it(site: Site) -> None:
    site.program("python3", "echo \"ModuleNotFoundError: No module named 'ensurepip'\" >&2; exit 1")
    found = look(site).one("host.python")
    assert (found["status"], found["code"]) == ("warn", "python_env")
    assert "ensurepip" in found["evidence"][0]


def test_a_python_that_makes_environments(site: Site) -> None:
    site.program("python3", f'exec {sys.executable} "$@"')
    assert look(site).verdict("host.python") == ("ok", None)


# ---- WSL ----


def test_no_word_of_wsl_elsewhere(site: Site) -> None:
    assert look(site).verdict("host.wsl") == ("ok", None)
    assert KERNEL not in look(site).one("host.wsl")["seen"]


def test_a_windows_that_hands_no_gpu_to_wsl(site: Site) -> None:
    site.wsl()
    site.put("dev/dxg")
    site.program("cmd.exe", "echo; echo 'Microsoft Windows [Version 10.0.19042.928]'")
    found = look(site).one("host.wsl")
    assert (found["status"], found["code"]) == ("fail", "wsl")
    assert "19042" in found["seen"]


def test_a_windows_new_enough(site: Site) -> None:
    site.wsl()
    site.put("dev/dxg")
    site.program("cmd.exe", "echo 'Microsoft Windows [Version 10.0.26100.4061]'")
    assert look(site).verdict("host.wsl") == ("ok", None)


def test_wsl_without_dxg(site: Site) -> None:
    site.wsl()
    assert look(site).verdict("host.wsl") == ("warn", "wsl")


def test_wsl_1(site: Site) -> None:
    site.put("proc/sys/kernel/osrelease", "4.4.0-19041-Microsoft\n")
    assert look(site).verdict("host.wsl") == ("fail", "wsl")
