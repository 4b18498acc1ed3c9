"""One call that fails costs one field: the GPU stays listed, with a problem that names the field and NVML's error."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.machines.nvml_machines import description

# Every call that is made on a device, without its version, and the field that its failure costs.
FIELDS = {
    "nvmlDeviceGetHandleByIndex": "handle",
    "nvmlDeviceGetUUID": "uuid",
    "nvmlDeviceGetName": "name",
    "nvmlDeviceGetPciInfo": "pci_bus_id",
    "nvmlDeviceGetMemoryInfo": "memory",
    "nvmlDeviceGetCudaComputeCapability": "compute_capability",
    "nvmlDeviceGetUtilizationRates": "utilisation_percent",
    "nvmlDeviceGetTemperature": "temperature_c",
    "nvmlDeviceGetPowerUsage": "power_w",
    "nvmlDeviceGetEnforcedPowerLimit": "power_limit_w",
    "nvmlDeviceGetComputeRunningProcesses": "holders",
    "nvmlDeviceGetGraphicsRunningProcesses": "holders",
    "nvmlDeviceGetMigMode": "mig",
    "nvmlDeviceGetMaxMigDeviceCount": "mig",
    "nvmlDeviceGetMigDeviceHandleByIndex": "mig",
    "nvmlDeviceGetGpuInstanceId": "mig[0].gpu_instance",
    "nvmlDeviceGetComputeInstanceId": "mig[0].compute_instance",
    "nvmlDeviceGetNvLinkState": "nvlinks",
    "nvmlDeviceGetNvLinkRemotePciInfo": "nvlinks",
    "nvmlDeviceGetNvLinkRemoteDeviceType": "nvlinks",
    "nvmlDeviceGetTopologyCommonAncestor": "links[0,1].path",
    "nvmlDeviceGetP2PStatus": "links[0,1].p2p",
}
# Calls whose failure is no problem: they serve for cards that no list has.
CLOCKS = {"nvmlDeviceGetMemoryBusWidth", "nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetNumGpuCores"}
CODES = {"NO_PERMISSION": 4, "GPU_IS_LOST": 15, "RESET_REQUIRED": 16, "UNKNOWN": 999}
CASES = [(call, code) for call in FIELDS for code in CODES]
# Where NOT_SUPPORTED is an answer: no MIG, no NVLink, no graphics, no word of what a lane ends at.
ANSWERS = {
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetNvLinkRemoteDeviceType",
    "nvmlDeviceGetGraphicsRunningProcesses",
}


def _pair(call: str | None = None, code: int = 0) -> dict[str, Any]:
    """Two GPUs of which the second exercises every call, and fails at `call`."""
    machine = description("a6000-x2-nvlink")
    instance = {"name": "MIG 1g.12gb", "gpu_instance": 3, "compute_instance": 0, "memory_mib": {"total": 12288}}
    machine["gpus"][1].update(mig=True, instances=[instance], compute=[{"pid": 5004242, "memory_mib": 300}])
    if call:
        machine["gpus"][1]["errors"] = {call: code}
    return machine


@pytest.fixture(scope="module")
def failed(look_at_many: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What is told of the pair for every call and code."""
    codes = {**CODES, "NOT_SUPPORTED": 3}
    cases = {f"{call} {name}": _pair(call, code) for call in FIELDS for name, code in codes.items()}
    return look_at_many({"sound": _pair(), **cases})


def test_the_table_holds_every_call_that_is_made(look: Any, tmp_path: Path) -> None:
    log = tmp_path / "calls"

    def as_pair(machine: dict[str, Any]) -> None:
        machine.update(_pair())

    look("a6000-x2-nvlink", as_pair, env={"MSCLI_TEST_NVML_LOG": str(log)})
    on_devices = {line.split()[0] for line in log.read_text().splitlines() if " " in line}
    assert {re.sub(r"_v\d$", "", call) for call in on_devices} == {*FIELDS, *CLOCKS}


@pytest.mark.parametrize("call", sorted(CLOCKS))
def test_a_driver_that_does_not_tell_the_clocks_is_no_problem(look: Any, call: str) -> None:
    def described(machine: dict[str, Any], **more: Any) -> None:
        clocks = {"bus_bits": 384, "memory_mhz": 8001, "cores": 10752, "sm_mhz": 2100}
        machine["gpus"][0] |= {"clocks": clocks, **more}

    told = look("a6000", described)["gpus"][0]
    silent = look("a6000", partial(described, errors={call: 3}))["gpus"][0]
    assert told["clocks"]["memory_mhz"] == 8001
    assert (silent["clocks"], silent["problems"]) == (None, told["problems"])


def test_without_a_failure_there_is_no_problem(failed: dict[str, Any]) -> None:
    seen = failed["sound"]
    assert [gpu["problems"] for gpu in seen["gpus"]] == [[], []]
    assert seen["problems"] == []


@pytest.mark.parametrize(("call", "code"), CASES)
def test_the_gpu_stays_listed_with_a_problem(call: str, code: str, failed: dict[str, Any]) -> None:
    seen = failed[f"{call} {code}"]
    assert [gpu["index"] for gpu in seen["gpus"]] == [0, 1]
    told = [(problem["field"], problem["code"]) for problem in (*seen["gpus"][1]["problems"], *seen["problems"])]
    assert (FIELDS[call], code) in told


@pytest.mark.parametrize(("call", "code"), CASES)
def test_the_other_gpu_is_none_the_worse(call: str, code: str, failed: dict[str, Any]) -> None:
    assert failed[f"{call} {code}"]["gpus"][0] == failed["sound"]["gpus"][0]
    assert 0 in [device["gpu"] for device in failed[f"{call} {code}"]["devices"]]


@pytest.mark.parametrize("call", sorted(set(FIELDS) - ANSWERS))
def test_not_supported_is_told_too(call: str, failed: dict[str, Any]) -> None:
    seen = failed[f"{call} NOT_SUPPORTED"]
    told = [(problem["field"], problem["code"]) for problem in (*seen["gpus"][1]["problems"], *seen["problems"])]
    assert (FIELDS[call], "NOT_SUPPORTED") in told


@pytest.mark.parametrize("call", sorted(ANSWERS))
def test_not_supported_can_be_an_answer(call: str, failed: dict[str, Any]) -> None:
    seen = failed[f"{call} NOT_SUPPORTED"]
    assert (seen["gpus"][1]["problems"], seen["problems"]) == ([], [])


@pytest.mark.parametrize("call", [call for call, field in FIELDS.items() if not field.startswith("links")])
@pytest.mark.parametrize("code", ["GPU_IS_LOST", "RESET_REQUIRED"])
def test_a_gpu_gone_at_any_call_is_no_device(call: str, code: str, failed: dict[str, Any]) -> None:
    assert [device["gpu"] for device in failed[f"{call} {code}"]["devices"]] == [0]


def test_a_field_that_fails_often_is_told_once(failed: dict[str, Any]) -> None:
    problems = failed["nvmlDeviceGetNvLinkRemotePciInfo UNKNOWN"]["gpus"][1]["problems"]
    assert [problem["field"] for problem in problems] == ["nvlinks"]


NO_INSTANCES = {"nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex"}
NOT_NAMED = {"nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"}


@pytest.mark.parametrize("call", sorted(set(FIELDS) - NO_INSTANCES - NOT_NAMED))
def test_another_failure_leaves_the_device(call: str, failed: dict[str, Any]) -> None:
    assert [device["gpu"] for device in failed[f"{call} UNKNOWN"]["devices"]] == [0, 1]


@pytest.mark.parametrize("call", sorted(NO_INSTANCES | NOT_NAMED))
def test_a_device_that_cannot_be_named_is_none(call: str, failed: dict[str, Any]) -> None:
    assert [device["gpu"] for device in failed[f"{call} UNKNOWN"]["devices"]] == [0]


@pytest.mark.parametrize(("version", "code"), [("_v2", 13), ("_v2", 25), ("_v2", 3), ("_v2", 2)])
def test_a_newer_call_that_the_driver_does_not_know_costs_nothing(version: str, code: int, look: Any) -> None:
    def old(machine: dict[str, Any]) -> None:
        machine["gpus"][0]["errors"] = {f"nvmlDeviceGetMemoryInfo{version}": code}

    gpu = look("rtx4090", old)["gpus"][0]
    assert (gpu["memory_total_bytes"], gpu["problems"]) == (24564 * 2**20, [])


@pytest.mark.parametrize("call", ["nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion", "nvmlShutdown"])
def test_a_failure_of_the_system_calls_hides_no_gpu(call: str, look: Any) -> None:
    seen = look("rtx4090", lambda machine: machine.update(errors={call: 999}))
    assert len(seen["devices"]) == 1
    assert [problem["code"] for problem in seen["problems"]] == ["UNKNOWN"]


def test_an_unreadable_count_is_told(look: Any) -> None:
    seen = look("rtx4090", lambda machine: machine.update(errors={"nvmlDeviceGetCount": 999}))
    assert (seen["gpus"], [(problem["field"]) for problem in seen["problems"]]) == ([], ["count"])
