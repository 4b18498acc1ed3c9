"""`mscli doctor --log` on the machine itself: what its checks say of the causes that a log supports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.doctor.doctor_site import Children

Machine = Callable[..., dict[str, str]]
Ask = Callable[..., list[dict[str, Any]]]

LOST = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
OLD = "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"


@pytest.fixture
def ask(children: Children, machine: Machine, user_env: dict[str, str], tmp_path: Path) -> Ask:
    """The causes that the doctor names for a log on a described machine."""

    def on(name: str, log: str, *options: str) -> list[dict[str, Any]]:
        if Path("/proc/driver/nvidia/version").exists():
            pytest.skip("this machine has an NVIDIA module, whose release would be compared with the described one")
        path = tmp_path / "engine.log"
        path.write_text(log)
        env = {**user_env, **machine(name, cuda=True)}
        _, envelope = children.ask({"env": env, "argv": ["doctor", "--json", "--log", str(path), *options]})
        causes: list[dict[str, Any]] = envelope["data"]["causes"]
        return causes

    return on


def test_a_machine_that_shows_a_cause_confirms_it(ask: Ask) -> None:
    alone, live = ask("driver-not-loaded", LOST)[0], ask("driver-not-loaded", LOST, "--here")[0]

    assert live["code"] == "no_driver"
    assert live["live"]["verdict"] == "confirmed"
    assert live["live"]["check"] == "driver.nvml"
    assert live["confidence"] >= alone["confidence"]


def test_a_machine_without_it_refutes_what_does_not_pass_by_itself(ask: Ask) -> None:
    first = ask("rtx4090", OLD, "--here")[0]

    assert (first["code"], first["live"]["verdict"]) == ("driver_too_old", "refuted")
    assert first["confidence"] < 0.85


def test_what_passes_is_not_refuted_by_a_machine_that_is_well_again(ask: Ask) -> None:
    busy = (
        "ValueError: Free memory on device cuda:0 (2.1/23.5 GiB) on startup is less than desired GPU memory utilization"
    )
    first = ask("rtx4090", busy, "--here")[0]

    assert (first["code"], first["live"]) == ("gpu_busy", None)


def test_a_log_of_another_machine_is_not_judged_by_this_one(ask: Ask) -> None:
    assert [cause["live"] for cause in ask("driver-not-loaded", LOST)] == [None]


def test_a_line_that_fits_several_causes_is_decided_by_the_machine(ask: Ask) -> None:
    line = "RuntimeError: Failed to infer device type"

    assert max(cause["confidence"] for cause in ask("driver-not-loaded", line)) < 0.5
    assert ask("driver-not-loaded", line, "--here")[0]["code"] == "no_driver"
    assert ask("driver-not-loaded", line, "--here")[0]["confidence"] >= 0.5
