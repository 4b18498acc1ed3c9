"""The host around the GPUs, read from trees of our own making in place of /."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscli.inventory.host import (
    Limits,
    container,
    cores,
    cpu_flags,
    cpu_model,
    disk_free,
    ram,
    read_host,
    read_limits,
)

GIB = 2**30
MEMINFO = (
    "MemTotal:       65806948 kB\nMemFree:         2097152 kB\nMemAvailable:   50331648 kB\nHugePages_Total:       0\n"
)
UNLIMITED_V1 = 9223372036854771712
UNLIMITED = Limits(None, None, None)


def _put(root: Path, path: str, text: object) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"{text}\n")


# ---- control groups ----


def _v2(root: Path, group: str, **files: object) -> None:
    for name, text in files.items():
        _put(root, f"sys/fs/cgroup/{group}/{name.replace('_', '.', 1)}", text)


def test_no_groups_no_limits(tmp_path: Path) -> None:
    assert read_limits(tmp_path) == UNLIMITED


def test_v2_limits(tmp_path: Path) -> None:
    _put(tmp_path, "proc/self/cgroup", "0::/")
    _v2(tmp_path, ".", memory_max=8 * GIB, memory_current=3 * GIB, cpu_max="150000 100000")
    assert read_limits(tmp_path) == Limits(8 * GIB, 5 * GIB, 1.5)


def test_v2_max_is_no_limit(tmp_path: Path) -> None:
    _put(tmp_path, "proc/self/cgroup", "0::/")
    _v2(tmp_path, ".", memory_max="max", memory_current=3 * GIB, cpu_max="max 100000")
    assert read_limits(tmp_path) == UNLIMITED


def test_page_cache_that_can_be_given_back_is_free(tmp_path: Path) -> None:
    _put(tmp_path, "proc/self/cgroup", "0::/")
    stat = f"anon {GIB}\nfile {6 * GIB}\ninactive_file {5 * GIB}"
    _v2(tmp_path, ".", memory_max=8 * GIB, memory_current=7 * GIB, memory_stat=stat)
    assert read_limits(tmp_path).memory_free_bytes == 6 * GIB


def test_a_limit_above_binds_a_nested_group(tmp_path: Path) -> None:
    _put(tmp_path, "proc/self/cgroup", "0::/user.slice/user-1000.slice/app.scope")
    _v2(tmp_path, "user.slice", memory_max=16 * GIB, memory_current=15 * GIB, cpu_max="400000 100000")
    _v2(tmp_path, "user.slice/user-1000.slice", memory_max="max", cpu_max="max 100000")
    _v2(tmp_path, "user.slice/user-1000.slice/app.scope", memory_max=12 * GIB, memory_current=2 * GIB)
    assert read_limits(tmp_path) == Limits(12 * GIB, 1 * GIB, 4.0)


def test_a_group_of_the_hosts_tree_that_is_not_mounted_here(tmp_path: Path) -> None:
    _put(tmp_path, "proc/self/cgroup", "0::/system.slice/docker-abc.scope")
    _v2(tmp_path, ".", memory_max=4 * GIB, memory_current=GIB)
    assert read_limits(tmp_path) == Limits(4 * GIB, 3 * GIB, None)


def test_a_group_outside_our_namespace(tmp_path: Path) -> None:
    _put(tmp_path, "proc/self/cgroup", "0::/../../elsewhere")
    _put(tmp_path, "sys/elsewhere/memory.max", GIB)
    _v2(tmp_path, ".", memory_max=4 * GIB, memory_current=GIB)
    assert read_limits(tmp_path).memory_bytes == 4 * GIB


V1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/system.slice"


def test_v1_limits_nested(tmp_path: Path) -> None:
    _put(tmp_path, "proc/self/cgroup", V1)
    memory, cpu = "sys/fs/cgroup/memory", "sys/fs/cgroup/cpu,cpuacct"
    _put(tmp_path, f"{memory}/memory.limit_in_bytes", UNLIMITED_V1)
    _put(tmp_path, f"{memory}/docker/abc/memory.limit_in_bytes", 10 * GIB)
    _put(tmp_path, f"{memory}/docker/abc/memory.usage_in_bytes", 6 * GIB)
    _put(tmp_path, f"{memory}/docker/abc/memory.stat", f"cache {3 * GIB}\ntotal_inactive_file {2 * GIB}")
    _put(tmp_path, f"{cpu}/docker/abc/cpu.cfs_quota_us", 250000)
    _put(tmp_path, f"{cpu}/docker/abc/cpu.cfs_period_us", 100000)
    assert read_limits(tmp_path) == Limits(10 * GIB, 6 * GIB, 2.5)


def test_v1_as_a_container_sees_it(tmp_path: Path) -> None:
    _put(tmp_path, "proc/self/cgroup", V1)
    _put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", 10 * GIB)
    _put(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", 6 * GIB)
    _put(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1)
    _put(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", 100000)
    assert read_limits(tmp_path) == Limits(10 * GIB, 4 * GIB, None)


def test_an_unlimited_v1_group_leaves_the_machines_ram(tmp_path: Path) -> None:
    _put(tmp_path, "proc/self/cgroup", V1)
    _put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED_V1)
    _put(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", 6 * GIB)
    assert ram(MEMINFO, read_limits(tmp_path)) == ram(MEMINFO, UNLIMITED)


# ---- RAM, CPU, disk ----


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (UNLIMITED, (65806948 * 1024, 50331648 * 1024)),
        (Limits(8 * GIB, 5 * GIB, None), (8 * GIB, 5 * GIB)),
        (Limits(60 * GIB, 55 * GIB, None), (60 * GIB, 48 * GIB)),
        (Limits(1024 * GIB, 900 * GIB, None), (65806948 * 1024, 48 * GIB)),
        (Limits(8 * GIB, 0, None), (8 * GIB, 0)),
    ],
    ids=["none", "tighter", "available is the machine's", "wider", "used up"],
)
def test_ram(limits: Limits, expected: tuple[int, int]) -> None:
    assert ram(MEMINFO, limits) == expected


def test_ram_of_an_old_kernel_without_an_available_figure() -> None:
    assert ram("MemTotal: 4096 kB\nMemFree: 1024 kB\n", UNLIMITED) == (4096 * 1024, 1024 * 1024)


@given(st.integers(0, 2**50), st.integers(0, 2**50))
def test_no_limit_adds_ram(limit: int, free: int) -> None:
    total, available = ram(MEMINFO, Limits(limit, free, None))
    assert 0 <= available <= total <= 65806948 * 1024


X86 = "processor\t: 0\nmodel name\t: AMD Ryzen 9 7950X 16-Core Processor\nflags\t\t: fpu sse4_2 avx2 avx512f\n"
ARM = "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd sve2\nCPU implementer\t: 0x41\n"


def test_an_x86_cpu() -> None:
    assert cpu_model(X86) == "AMD Ryzen 9 7950X 16-Core Processor"
    assert cpu_flags(X86) == ("fpu", "sse4_2", "avx2", "avx512f")


def test_an_arm_cpu_has_no_name_of_its_own() -> None:
    assert cpu_model(ARM) == os.uname().machine
    assert cpu_flags(ARM) == ("fp", "asimd", "sve2")


@pytest.mark.parametrize(
    ("allowed", "quota", "expected"), [(16, None, 16), (16, 4.0, 4), (16, 2.5, 2), (16, 0.5, 1), (2, 8.0, 2)]
)
def test_cores(allowed: int, quota: float | None, expected: int) -> None:
    assert cores(allowed, quota) == expected


def test_disk_of_a_folder_that_is_yet_to_be_made(tmp_path: Path) -> None:
    free = disk_free(tmp_path / "models" / "hub")
    assert free == pytest.approx(os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize, rel=0.05)
    assert not (tmp_path / "models").exists()


def test_disk_of_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (disk_free(tmp_path / "file" / "hub") or 0) > 0


def test_disk_of_a_folder_that_cannot_be_asked() -> None:
    assert disk_free(Path("/" + "x" * 300)) is None


# ---- container, WSL, bare ----


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", 'engine="podman-4.9.3"', "podman"),
        ("run/secrets/kubernetes.io/serviceaccount/namespace", "default", "kubernetes"),
        ("proc/self/cgroup", "0::/kubepods/besteffort/pod1/9d8c", "kubernetes"),
        ("proc/self/cgroup", "5:memory:/docker/9d8c", "docker"),
        ("proc/self/cgroup", "0::/system.slice/docker-9d8c.scope", "docker"),
        ("proc/self/cgroup", "0::/machine.slice/libpod-9d8c.scope", "podman"),
        ("proc/self/cgroup", "3:cpu:/lxc/web", "lxc"),
        ("proc/self/cgroup", "0::/lxc.payload.web/init.scope", "lxc"),
        ("proc/1/environ", "container=lxc\0TERM=linux\0", "lxc"),
        ("run/systemd/container", "lxc", "lxc"),
        ("run/systemd/container", "systemd-nspawn", "unknown"),
        ("proc/self/mountinfo", "9 8 0:1 /var/lib/docker/containers/9d8c/hosts /etc/hosts rw - ext4 d rw", "docker"),
        ("proc/self/mountinfo", "9 8 0:1 /var/lib/kubelet/pods/1/etc-hosts /etc/hosts rw - ext4 d rw", "kubernetes"),
    ],
)
def test_containers_by_their_traces(path: str, text: str, kind: str, tmp_path: Path) -> None:
    _put(tmp_path, path, text)
    assert container(tmp_path, {}) == kind


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("proc/self/cgroup", "0::/user.slice/user-1000.slice/session-2.scope"),
        ("proc/self/cgroup", "0::/system.slice/docker.service"),
        ("proc/self/mountinfo", "9 8 0:1 / /var/lib/docker/containers/9d8c/mounts/shm rw - tmpfs shm rw"),
        ("proc/1/environ", "TERM=linux\0HOME=/\0"),
    ],
    ids=["a login", "docker's own service", "a machine that runs containers", "an init"],
)
def test_a_host_is_no_container(path: str, text: str, tmp_path: Path) -> None:
    _put(tmp_path, path, text)
    assert container(tmp_path, {}) is None


@pytest.mark.parametrize(
    ("env", "kind"),
    [({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"), ({"container": "podman"}, "podman"), ({}, None)],
)
def test_containers_by_their_environment(env: dict[str, str], kind: str | None, tmp_path: Path) -> None:
    assert container(tmp_path, env) == kind


@pytest.mark.parametrize(
    ("kernel", "in_docker", "expected"),
    [
        ("6.8.0-45-generic", False, ("bare", None)),
        ("5.15.153.1-microsoft-standard-WSL2", False, ("wsl", None)),
        ("5.15.153.1-microsoft-standard-WSL2", True, ("container", "docker")),
        ("6.8.0-45-generic", True, ("container", "docker")),
    ],
)
def test_surroundings(kernel: str, in_docker: bool, expected: tuple[str, str | None], tmp_path: Path) -> None:
    _put(tmp_path, "proc/sys/kernel/osrelease", kernel)
    if in_docker:
        _put(tmp_path, ".dockerenv", "")
    host = read_host(tmp_path, {}, tmp_path)
    assert (host.surroundings, host.container, host.kernel) == (*expected, kernel)


def test_a_whole_host(tmp_path: Path) -> None:
    _put(tmp_path, "proc/meminfo", MEMINFO)
    _put(tmp_path, "proc/cpuinfo", X86)
    _put(tmp_path, "proc/self/cgroup", "0::/")
    _v2(tmp_path, ".", memory_max=8 * GIB, memory_current=GIB, cpu_max="100000 100000")
    host = read_host(tmp_path / "hub", {}, tmp_path)
    assert (host.ram_total_bytes, host.ram_available_bytes, host.cpu_cores) == (8 * GIB, 7 * GIB, 1)
    assert (host.cpu_model, host.cpu_flags[-1]) == ("AMD Ryzen 9 7950X 16-Core Processor", "avx512f")
    assert host.disk_path == tmp_path / "hub"


def test_this_machine() -> None:
    host = read_host(Path("/"), os.environ, Path("/"))
    assert 0 < host.ram_available_bytes <= host.ram_total_bytes
    assert 1 <= host.cpu_cores <= (os.cpu_count() or 1)
    assert host.cpu_model
    assert (host.disk_free_bytes or 0) > 0
