"""Every described machine through the real command: the right cause first, and no failure on a healthy one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.doctor.doctor_site import Children
from support.machines.nvml_machines import NAMES, NO_DRIVER
from support.run_mscli import Mscli

AREAS = [word for area in ("driver", "gpu", "cuda") for word in ("--only", area)]
Machine = Callable[..., dict[str, str]]

# What is wrong, as (status, code), the worst first. A machine that is not here is healthy.
WRONG: dict[str, tuple[str, str]] = {
    "driver-not-loaded": ("fail", "no_driver"),
    "driver-mismatch": ("fail", "nvml_mismatch"),
    "nvml-no-permission": ("fail", "permissions"),
    "driver-470": ("fail", "driver_too_old"),
    "driver-535": ("warn", "driver_too_old"),
    "gpu-no-permission": ("warn", "permissions"),
    "rtx4090-x2-one-lost": ("fail", "xid"),
    "rtx4090-full": ("warn", "gpu_busy"),
    "h100-mig": ("warn", "mig"),
    "v100-16": ("warn", "compute_capability"),
}
OF_THIS_MACHINE = {"gpu.faults", "gpu.ecc"}  # the kernel's log is this machine's own, whatever NVML says


@pytest.fixture
def findings(
    children: Children, machine: Machine, user_env: dict[str, str]
) -> Callable[[str], tuple[int, list[dict[str, Any]]]]:
    def on(name: str) -> tuple[int, list[dict[str, Any]]]:
        if Path("/proc/driver/nvidia/version").exists():
            pytest.skip("this machine has an NVIDIA module, whose release would be compared with the described one")
        env = {**user_env, **machine(name, cuda=True)}
        code, envelope = children.ask({"env": env, "argv": ["doctor", "--json", *AREAS]})
        return code, [one for one in envelope["data"]["findings"] if one["id"] not in OF_THIS_MACHINE]

    return on


def wrong(found: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """Failures first, then warnings, each in the order of the checks."""
    bad = [(one["status"], one["code"]) for one in found if one["status"] in ("fail", "warn", "crashed")]
    return sorted(bad, key=lambda one: one[0] == "warn")


@pytest.mark.parametrize("name", NAMES)
def test_the_cause_of_each_machine(name: str, findings: Callable[..., Any]) -> None:
    code, found = findings(name)
    expected = WRONG.get(name)
    assert wrong(found) == ([expected] if expected else [])
    assert all(one["remedy"] for one in found if one["status"] in ("fail", "warn"))
    if expected:
        assert code == (5 if expected[0] == "fail" else 0)


def test_a_machine_without_a_driver(findings: Callable[..., Any]) -> None:
    """What it is depends on this machine's own bus; it is one finding, and all that builds on it is skipped."""
    _, found = findings(NO_DRIVER)
    ((status, code),) = wrong(found)
    assert code in ("no_driver", "nvml_not_found", "wsl")
    assert status in ("warn", "fail")
    assert {one["status"] for one in found if one["area"] == "gpu"} == {"skipped"}


def test_the_whole_command_on_a_healthy_machine_is_quick(mscli: Mscli, machine: Machine) -> None:
    """3 s is what is promised; a busy tester's machine is given more for starting Python."""
    ran = mscli("doctor", "--json", "--only", "host", *AREAS, env=machine("rtx4090-x2", cuda=True))
    assert ran.data["seconds"] < 3.0
    assert not [one for one in ran.data["findings"] if one["status"] == "crashed"]
