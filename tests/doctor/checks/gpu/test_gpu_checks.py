"""Faults of the GPUs themselves, as the driver, its counters and the kernel's log tell them."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from support.doctor.doctor_site import Site

AREA = "gpu"


def on_first(**keys: Any) -> Any:
    """An edit that changes the first GPU of a description."""
    return lambda one: one["gpus"][0].update(keys)


# ---- readable ----


def test_a_gpu_that_fell_off_the_bus_is_one_failure_with_the_kernels_words(site: Site) -> None:
    site.kernel_says("[  100.000000] NVRM: Xid (PCI:0000:02:00): 79, pid=1, GPU has fallen off the bus.")
    found = site.look("rtx4090-x2-one-lost", "driver,gpu,cuda")
    assert found.fails == [("gpu.readable", "xid")]
    assert any("Xid" in line for line in found.of("gpu.readable")[0]["evidence"])


def test_a_gpu_that_this_user_may_not_open_beside_one_that_he_may(site: Site) -> None:
    found = site.look("gpu-no-permission", "gpu")
    assert found.warnings == [("gpu.readable", "permissions")]
    assert found.fails == []


def test_no_gpu_that_this_user_may_open(site: Site) -> None:
    found = site.look("gpu-no-permission", "gpu", on_first(errors={"*": 4}))
    assert ("gpu.readable", "permissions") in found.fails


# ---- the kernel's log ----

HARDWARE = "[80000.000000] NVRM: Xid (PCI:0000:01:00): 119, pid=77, name=python, Timeout after 6s of waiting for RPC"
LONG_AGO = "[  100.000000] NVRM: Xid (PCI:0000:01:00): 119, pid=77, name=python, Timeout after 6s of waiting for RPC"
PROGRAM = "[80000.000000] NVRM: Xid (PCI:0000:01:00): 31, pid=77, name=python, Ch 00000008, MMU Fault"
NOTHING_NEEDED = (
    "[80000.000000] NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x1 (Reset) to 0x0 (None)"
)
OFF_BUS = (
    "[80000.308145] NVRM: The NVIDIA GPU 0000:b3:00.0",
    "               NVRM: (PCI ID: 10de:26b5) installed in this system has",
    "               NVRM: fallen off the bus and is not responding to commands.",
)


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ((HARDWARE,), ("fail", "xid")),
        ((LONG_AGO,), ("warn", "xid")),
        ((PROGRAM,), ("warn", "xid")),
        ((NOTHING_NEEDED,), ("ok", None)),
        (OFF_BUS, ("fail", "xid")),
        (("[80000.000000] nvidia: module license 'NVIDIA' taints kernel.",), ("ok", None)),
    ],
    ids=["hardware", "days ago", "a program's", "needs nothing", "off the bus without an Xid", "no fault"],
)
def test_faults_in_the_kernels_log(site: Site, lines: tuple[str, ...], verdict: tuple[str, str | None]) -> None:
    site.kernel_says(*lines)
    site.put("proc/uptime", "89000.00 1.0\n")
    assert site.look("rtx4090", "gpu").verdict("gpu.faults") == verdict


def test_a_log_that_this_user_may_not_read_is_not_taken_for_a_good_one(site: Site) -> None:
    site.program("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    found = site.look("rtx4090", "gpu").one("gpu.faults")
    assert found["status"] == "skipped"
    assert "Operation not permitted" in found["seen"]


def test_the_journal_is_read_where_dmesg_is_refused(site: Site) -> None:
    site.program("dmesg", "exit 1")
    line = "[80000.000000] host kernel: NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus."
    site.program("journalctl", f"echo '{line}'")
    assert site.look("rtx4090", "gpu").verdict("gpu.faults") == ("fail", "xid")


def test_only_this_boot_is_read_of_a_log_file(site: Site) -> None:
    site.program("dmesg", "exit 1")
    before = (
        "2026-11-25T10:00:00 host kernel: [80000.0] NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus."
    )
    boot = "2026-11-26T10:00:00 host kernel: [    0.000000] Linux version 6.8.0-45-generic"
    site.put("var/log/kern.log", f"{before}\n{boot}\n")
    assert site.look("rtx4090", "gpu").verdict("gpu.faults") == ("ok", None)
    site.put("var/log/kern.log", f"{boot}\n{before}\n")
    assert site.look("rtx4090", "gpu").verdict("gpu.faults") == ("fail", "xid")


# ---- memory errors ----


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"ecc": {"volatile": 2, "aggregate": 2}}, "fail"),
        ({"remapped_rows": {"failed": True}}, "fail"),
        ({"remapped_rows": {"pending": True}}, "warn"),
        ({"retired_pages_pending": True}, "warn"),
        ({"ecc": {"volatile": 0, "aggregate": 5}, "remapped_rows": {"uncorrectable": 1}}, "ok"),
    ],
    ids=["uncorrected", "no spare rows", "rows pending", "pages pending", "repaired long ago"],
)
def test_memory_errors_by_nvmls_counters(site: Site, keys: dict[str, Any], status: str) -> None:
    found = site.look("a100-80", "gpu", on_first(**keys))
    assert found.verdict("gpu.ecc") == (status, None if status == "ok" else "ecc")


@pytest.mark.parametrize(("number", "status"), [(48, "fail"), (94, "fail"), (63, "warn")])
def test_memory_errors_by_the_kernels_log(site: Site, number: int, status: str) -> None:
    site.kernel_says(f"[89000.000000] NVRM: Xid (PCI:0000:01:00): {number}, pid=1, an error")
    found = site.look("a100-80", "gpu")
    assert found.verdict("gpu.ecc") == (status, "ecc")
    assert found.verdict("gpu.faults") == ("ok", None), "one cause is told once"


# ---- what is visible ----


@pytest.mark.parametrize(
    ("value", "status"), [("3", "fail"), ("0,0", "fail"), ("0,7", "warn"), ("", "warn"), ("1", "ok"), ("GPU-00", "ok")]
)
def test_cuda_visible_devices(site: Site, value: str, status: str) -> None:
    found = site.look("rtx4090-x2", "gpu,cuda", env={"CUDA_VISIBLE_DEVICES": value})
    assert found.verdict("gpu.visible") == (status, None if status == "ok" else "visible_devices")
    assert [check for check, _ in found.fails] == (["gpu.visible"] if status == "fail" else [])


def test_indices_between_unlike_gpus_are_ambiguous(site: Site) -> None:
    found = site.look("rtx4090-rtx3060", "gpu", env={"CUDA_VISIBLE_DEVICES": "0"})
    assert found.verdict("gpu.visible") == ("warn", "visible_devices")


def test_mig_is_told_with_what_a_process_can_use(site: Site) -> None:
    found = site.look("h100-mig", "driver,gpu,cuda")
    assert found.verdict("gpu.mig") == ("warn", "mig")
    assert "7 MIG instances" in found.one("gpu.mig")["seen"]
    assert found.fails == []


def test_mig_without_instances_leaves_cuda_nothing(site: Site) -> None:
    found = site.look("h100-mig", "gpu,cuda", on_first(instances=[]))
    assert found.verdict("gpu.mig") == ("warn", "mig")
    assert found.one("cuda.start")["status"] == "skipped"


# ---- memory that others hold ----


def test_a_full_gpu_is_told_with_who_holds_it(site: Site) -> None:
    holder = {"pid": os.getpid(), "memory_mib": 23310}
    folder = f"proc/{os.getpid()}"
    site.put(f"{folder}/cmdline", "python\0train.py")
    site.put(f"{folder}/status", "Name:\tpython\nUid:\t0\t0\t0\t0\n")
    found = site.look("rtx4090-full", "gpu", on_first(compute=[holder])).one("gpu.free")
    assert (found["status"], found["code"]) == ("warn", "gpu_busy")
    assert "python train.py" in found["seen"]


def test_a_desktop_is_no_busy_gpu(site: Site) -> None:
    assert site.look("rtx4090-desktop", "gpu").verdict("gpu.free") == ("ok", None)


# ---- slowed down ----


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"throttle_reasons": 0x48}, "too hot"),
        ({"throttle_reasons": 0x80}, "power brake"),
        ({"temperature_c": 95}, "95 C"),
        ({"pcie": {"width": 1, "max_width": 16}}, "1 of 16 PCIe lanes"),
    ],
)
def test_a_gpu_that_is_slowed_down(site: Site, keys: dict[str, Any], word: str) -> None:
    found = site.look("rtx4090", "gpu", on_first(**keys)).of("gpu.slowed")
    assert found[0]["status"] == "warn"
    assert word in found[0]["seen"]


@pytest.mark.parametrize("keys", [{"throttle_reasons": 0x5}, {"pcie": {"width": 8, "max_width": 16}}])
def test_idle_clocks_a_power_cap_and_eight_lanes_are_normal(site: Site, keys: dict[str, Any]) -> None:
    assert site.look("rtx4090", "gpu", on_first(**keys)).verdict("gpu.slowed") == ("ok", None)


def test_a_gpu_too_old_for_vllms_wheels(site: Site) -> None:
    assert site.look("v100-16", "gpu").verdict("gpu.capability") == ("warn", "compute_capability")
    assert "no BF16" in site.look("t4", "gpu").one("gpu.capability")["seen"]


# ---- several GPUs ----


@pytest.mark.parametrize(("kind", "status"), [("DMA-FQ", "warn"), ("identity", "ok")])
def test_an_iommu_between_gpus(site: Site, kind: str, status: str) -> None:
    def on_pcie(one: Any) -> None:
        for gpu in one["gpus"]:
            gpu.pop("nvlinks")

    for address in ("0000:01:00.0", "0000:11:00.0"):
        site.put(f"sys/bus/pci/devices/{address}/iommu_group/type", f"{kind}\n")
    found = site.look("a6000-x2-nvlink", "gpu", on_pcie)
    assert found.verdict("gpu.peers") == (status, "p2p" if status == "warn" else None)


def test_nvlink_does_not_pass_an_iommu(site: Site) -> None:
    site.put("sys/bus/pci/devices/0000:01:00.0/iommu_group/type", "DMA\n")
    assert site.look("a6000-x2-nvlink", "gpu").verdict("gpu.peers") == ("ok", None)


@pytest.mark.parametrize(
    ("variable", "value", "good"),
    [
        ("NCCL_SOCKET_IFNAME", "eth0", True),
        ("NCCL_SOCKET_IFNAME", "eth", True),
        ("NCCL_SOCKET_IFNAME", "^docker", True),
        ("NCCL_SOCKET_IFNAME", "=eth", False),
        ("NCCL_SOCKET_IFNAME", "enp5s0", False),
        ("GLOO_SOCKET_IFNAME", "eth", False),
        ("NCCL_P2P_DISABLE", "1", True),
    ],
)
def test_interfaces_named_for_nccl(site: Site, variable: str, value: str, good: bool) -> None:
    found = site.look("rtx4090-x2", "gpu", env={variable: value})
    assert found.verdict("gpu.nccl") == (("ok", None) if good else ("fail", "nccl"))


def test_a_wrong_interface_is_a_warning_with_one_gpu(site: Site) -> None:
    found = site.look("rtx4090", "gpu", env={"NCCL_SOCKET_IFNAME": "enp5s0"})
    assert found.verdict("gpu.nccl") == ("warn", "nccl")


def test_the_findings_are_plain_json(site: Site) -> None:
    assert json.dumps(site.look("rtx4090", "gpu").findings)
