"""Every described machine through the real pynvml: what a user would be told about it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import SUPPORT
from support.machines.nvml_machines import NAMES, NO_DRIVER, child, description, rewrite

MIB = 2**20
Look = Callable[..., dict[str, Any]]

# name of the machine: driver, CUDA, and of each GPU: name, compute capability, MiB in all, MiB free
MACHINES: dict[str, tuple[str, str, list[tuple[str, str, int, int]]]] = {
    "a100-40": ("580.95.05", "13.0", [("NVIDIA A100-SXM4-40GB", "8.0", 40960, 40388)]),
    "a100-80": ("580.95.05", "13.0", [("NVIDIA A100-SXM4-80GB", "8.0", 81920, 81048)]),
    "a6000": ("580.95.05", "13.0", [("NVIDIA RTX A6000", "8.6", 49140, 48684)]),
    "a6000-x2-nvlink": ("580.95.05", "13.0", [("NVIDIA RTX A6000", "8.6", 49140, 48684)] * 2),
    "driver-470": ("470.256.02", "11.4", [("NVIDIA GeForce RTX 3090", "8.6", 24576, 23067)]),
    "driver-535": ("535.183.01", "12.2", [("NVIDIA GeForce RTX 4090", "8.9", 24564, 24177)]),
    "h100-80": ("580.95.05", "13.0", [("NVIDIA H100 80GB HBM3", "9.0", 81559, 81007)]),
    "h100-mig": ("580.95.05", "13.0", [("NVIDIA H100 80GB HBM3", "9.0", 81559, 71931)]),
    "h100-x8": ("580.95.05", "13.0", [("NVIDIA H100 80GB HBM3", "9.0", 81559, 81007)] * 8),
    "h200": ("580.95.05", "13.0", [("NVIDIA H200", "9.0", 143771, 143162)]),
    "l40s": ("580.95.05", "13.0", [("NVIDIA L40S", "8.9", 46068, 45470)]),
    "rtx3090": ("580.95.05", "13.0", [("NVIDIA GeForce RTX 3090", "8.6", 24576, 24267)]),
    "rtx4090": ("580.95.05", "13.0", [("NVIDIA GeForce RTX 4090", "8.9", 24564, 24177)]),
    "rtx4090-desktop": ("580.95.05", "13.0", [("NVIDIA GeForce RTX 4090", "8.9", 24564, 22642)]),
    "rtx4090-full": ("580.95.05", "13.0", [("NVIDIA GeForce RTX 4090", "8.9", 24564, 842)]),
    "rtx4090-rtx3060": (
        "580.95.05",
        "13.0",
        [("NVIDIA GeForce RTX 3060", "8.6", 12288, 12050), ("NVIDIA GeForce RTX 4090", "8.9", 24564, 24177)],
    ),
    "rtx4090-wsl": ("581.57", "13.0", [("NVIDIA GeForce RTX 4090", "8.9", 24564, 22064)]),
    "rtx4090-x2": ("580.95.05", "13.0", [("NVIDIA GeForce RTX 4090", "8.9", 24564, 24177)] * 2),
    "rtx5090": ("580.95.05", "13.0", [("NVIDIA GeForce RTX 5090", "12.0", 32607, 32102)]),
    "rtx5090-x2": ("580.95.05", "13.0", [("NVIDIA GeForce RTX 5090", "12.0", 32607, 32102)] * 2),
    "t4": ("580.95.05", "13.0", [("Tesla T4", "7.5", 15360, 14912)]),
    "v100-16": ("580.95.05", "13.0", [("Tesla V100-SXM2-16GB", "7.0", 16160, 15935)]),
}
BROKEN = {
    "gb10",
    "rtx4090-x2-one-lost",
    "gpu-no-permission",
    "driver-not-loaded",
    "driver-mismatch",
    "nvml-no-permission",
}


@pytest.fixture(scope="module")
def machines(look_at_many: Look) -> dict[str, Any]:
    """The JSON data of `mscli gpus` on every shipped machine."""
    return look_at_many({name: description(name) for name in NAMES})


def test_every_shipped_machine_is_tested() -> None:
    assert sorted({*MACHINES, *BROKEN}) == NAMES


@pytest.mark.parametrize("name", sorted(MACHINES))
def test_gpus_of(name: str, machines: dict[str, Any]) -> None:
    seen = machines[name]
    driver, cuda, gpus = MACHINES[name]
    assert (seen["nvml"], seen["driver"], seen["cuda"]) == (None, driver, cuda)
    assert [
        (gpu["name"], gpu["compute_capability"], gpu["memory_total_bytes"], gpu["memory_free_bytes"])
        for gpu in seen["gpus"]
    ] == [(name, capability, total * MIB, free * MIB) for name, capability, total, free in gpus]
    assert [gpu["index"] for gpu in seen["gpus"]] == list(range(len(gpus)))
    assert len({gpu["uuid"] for gpu in seen["gpus"]}) == len(gpus)
    assert all(gpu["visible"] for gpu in seen["gpus"])


@pytest.mark.parametrize("name", sorted(set(MACHINES) - {"h100-mig"}))
def test_a_sound_machine_has_no_problems_and_each_gpu_is_a_device(name: str, machines: dict[str, Any]) -> None:
    seen = machines[name]
    assert seen["problems"] == []
    assert [gpu["problems"] for gpu in seen["gpus"]] == [[]] * len(seen["gpus"])
    whole = [
        (gpu["index"], gpu["uuid"], gpu["name"], gpu["memory_total_bytes"], gpu["memory_free_bytes"])
        for gpu in seen["gpus"]
    ]
    fields = ("gpu", "uuid", "name", "total_bytes", "free_bytes")
    assert [tuple(device[field] for field in fields) for device in seen["devices"]] == whole
    assert len(seen["links"]) == len(whole) * (len(whole) - 1) // 2


def test_the_json_data_has_the_fields_that_scripts_rely_on(machines: dict[str, Any]) -> None:
    seen = machines["rtx4090"]
    assert set(seen) == {
        *("driver", "cuda", "host", "gpus", "links", "devices", "nvml", "visible_devices", "problems"),
    }
    assert {
        *("index", "uuid", "name", "memory_total_bytes", "memory_used_bytes", "memory_free_bytes"),
        *("compute_capability", "mig", "holders", "problems"),
    } <= set(seen["gpus"][0])
    assert seen["gpus"][0]["mig"] == {"mode": "unsupported", "instances": []}


def test_readings_of_one_card(machines: dict[str, Any]) -> None:
    gpu = machines["rtx4090-full"]["gpus"][0]
    readings = ("utilisation_percent", "temperature_c", "power_w", "power_limit_w", "pci_bus_id")
    assert [gpu[reading] for reading in readings] == [98, 71, 402.5, 450.0, "00000000:01:00.0"]
    assert gpu["memory_used_bytes"] == 23336 * MIB
    assert gpu["memory_reserved_bytes"] == 386 * MIB


def test_a_desktop_shows_what_its_programs_hold(machines: dict[str, Any]) -> None:
    gpu = machines["rtx4090-desktop"]["gpus"][0]
    assert gpu["memory_used_bytes"] == 1536 * MIB
    held = [(holder["pid"], holder["used_bytes"] // MIB) for holder in gpu["holders"]]
    assert held == [(5001871, 742), (5002044, 181), (5004410, 598)]


def test_a_holder_is_named_with_its_user_and_command(look: Look) -> None:
    def held_by_this_test(description: dict[str, Any]) -> None:
        description["gpus"][0]["compute"][0]["pid"] = os.getpid()

    (holder,) = look("rtx4090-full", held_by_this_test)["devices"][0]["holders"]
    assert holder["pid"] == os.getpid()
    assert Path(sys.argv[0]).name in holder["command"] or "python" in holder["command"]
    assert holder["user"]


def test_a_process_that_computes_and_draws_is_one_holder(look: Look) -> None:
    def both(description: dict[str, Any]) -> None:
        description["gpus"][0]["graphics"] = [{"pid": 5004242, "memory_mib": 4}, {"pid": 5001871, "memory_mib": 9}]

    holders = look("rtx4090-full", both)["gpus"][0]["holders"]
    assert [(holder["pid"], holder["used_bytes"] // MIB) for holder in holders] == [(5004242, 23310), (5001871, 9)]


def test_what_a_process_holds_is_unknown_under_wsl(machines: dict[str, Any]) -> None:
    holders = machines["rtx4090-wsl"]["gpus"][0]["holders"]
    assert [(holder["pid"], holder["used_bytes"]) for holder in holders] == [(5000033, None)]


def test_an_old_driver_counts_its_reserve_as_used(machines: dict[str, Any]) -> None:
    gpu = machines["driver-470"]["gpus"][0]
    assert (gpu["memory_used_bytes"], gpu["memory_reserved_bytes"]) == (1509 * MIB, None)
    assert [holder["pid"] for holder in gpu["holders"]] == [5004242]


def test_a_lost_gpu_is_listed_but_is_no_device(machines: dict[str, Any]) -> None:
    seen = machines["rtx4090-x2-one-lost"]
    assert [(gpu["name"], gpu["visible"]) for gpu in seen["gpus"]] == [
        ("NVIDIA GeForce RTX 4090", True),
        ("unknown", False),
    ]
    assert [(problem["field"], problem["code"]) for problem in seen["gpus"][1]["problems"]] == [
        ("handle", "GPU_IS_LOST")
    ]
    assert [device["gpu"] for device in seen["devices"]] == [0]
    assert seen["gpus"][0]["problems"] == []


def test_a_gpu_that_is_not_ours_to_use_is_listed_but_is_no_device(machines: dict[str, Any]) -> None:
    seen = machines["gpu-no-permission"]
    assert [problem["code"] for problem in seen["gpus"][1]["problems"]] == ["NO_PERMISSION"]
    assert [device["gpu"] for device in seen["devices"]] == [0]


def test_unified_memory_is_the_hosts(machines: dict[str, Any]) -> None:
    seen = machines["gb10"]
    gpu, device, host = seen["gpus"][0], seen["devices"][0], seen["host"]
    assert gpu["unified_memory"]
    assert (gpu["memory_total_bytes"], gpu["memory_used_bytes"], gpu["memory_free_bytes"]) == (None, None, None)
    assert ("memory", "NOT_SUPPORTED") in [(problem["field"], problem["code"]) for problem in gpu["problems"]]
    assert (device["total_bytes"], device["free_bytes"]) == (host["ram_total_bytes"], host["ram_available_bytes"])


def test_mig_instances_are_the_devices(machines: dict[str, Any]) -> None:
    seen = machines["h100-mig"]
    mig = seen["gpus"][0]["mig"]
    assert (mig["mode"], len(mig["instances"])) == ("on", 7)
    assert [device["uuid"] for device in seen["devices"]] == [instance["uuid"] for instance in mig["instances"]]
    assert {(device["name"], device["mig"], device["compute_capability"]) for device in seen["devices"]} == {
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", True, "9.0")
    }
    assert [device["free_bytes"] // MIB for device in seen["devices"]] == [9973, 9973, 973, 9973, 9973, 9973, 9973]
    assert [len(device["holders"]) for device in seen["devices"]] == [0, 0, 1, 0, 0, 0, 0]


def test_mig_mode_without_instances_leaves_no_device(look: Look) -> None:
    seen = look("h100-mig", lambda description: description["gpus"][0].pop("instances"))
    assert (seen["gpus"][0]["mig"], seen["gpus"][0]["visible"]) == ({"mode": "on", "instances": []}, False)
    assert seen["devices"] == []


def test_eight_gpus_meet_in_switches(machines: dict[str, Any]) -> None:
    links = machines["h100-x8"]["links"]
    assert {(link["nvlinks"], link["path"], link["p2p"]) for link in links} == {(18, "system", True)}


def test_two_gpus_meet_over_a_bridge(machines: dict[str, Any]) -> None:
    assert machines["a6000-x2-nvlink"]["links"] == [
        {"first": 0, "second": 1, "nvlinks": 4, "path": "node", "p2p": True}
    ]


def test_lanes_that_are_down_do_not_count(look: Look) -> None:
    def two_down(description: dict[str, Any]) -> None:
        for gpu, remote in zip(description["gpus"], (1, 0), strict=True):
            gpu["nvlinks"] = [{"lanes": 2, "remote": remote}, {"lanes": 2, "remote": remote, "active": False}]

    assert look("a6000-x2-nvlink", two_down)["links"][0]["nvlinks"] == 2


def test_cards_without_nvlink_say_how_they_meet(machines: dict[str, Any]) -> None:
    (link,) = machines["rtx4090-rtx3060"]["links"]
    assert (link["nvlinks"], link["path"], link["p2p"]) == (0, "host-bridge", False)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        (NO_DRIVER, "LIBRARY_NOT_FOUND", "libnvidia-ml.so.1 was not found"),
        ("driver-not-loaded", "DRIVER_NOT_LOADED", "kernel module is not loaded"),
        ("driver-mismatch", "LIB_RM_VERSION_MISMATCH", "differ in version"),
        ("nvml-no-permission", "NO_PERMISSION", "has no permission to use the NVIDIA driver"),
    ],
)
def test_why_there_is_no_nvml(name: str, code: str, words: str, look: Look) -> None:
    seen = look(name)
    assert (seen["nvml"]["code"], seen["gpus"], seen["devices"], seen["driver"]) == (code, [], [], None)
    assert words in seen["nvml"]["message"]
    assert seen["host"]["ram_total_bytes"] > 0


def test_a_library_that_is_there_and_does_not_load_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("<html>404: there is no such driver</html>\n" * 20)
    code = "from mscli.inventory.detect import detect; print(detect(__import__('pathlib').Path('/')).nvml.message)"
    said = child(code, {"LD_LIBRARY_PATH": str(tmp_path)})
    assert "does not load: " in said
    assert "invalid ELF header" in said


@pytest.mark.parametrize("error", [999, 777])
def test_an_unheard_of_failure_is_passed_on(error: int, look: Look) -> None:
    seen = look("driver-mismatch", lambda description: description.update(init_error=error))
    assert seen["nvml"]["code"] == {999: "UNKNOWN", 777: "ERROR_777"}[error]
    assert seen["nvml"]["message"].startswith("NVML did not start")


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder@U22)",
    ],
)
def test_a_mismatch_names_the_loaded_module(line: str, look: Look, tmp_path: Path) -> None:
    version = tmp_path / "root/proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(f"{line}\nGCC version:  gcc version 12.3.0\n")
    seen = look("driver-mismatch", root=tmp_path / "root")
    assert "the loaded NVIDIA kernel module is 550.54.15" in seen["nvml"]["message"]


def test_a_container_without_its_gpus_is_told_how_to_get_them(look: Look, tmp_path: Path) -> None:
    (tmp_path / ".dockerenv").touch()
    assert "docker run --gpus all" in look(NO_DRIVER, root=tmp_path)["nvml"]["message"]


@pytest.mark.parametrize(("value", "shown"), [("1", [1]), ("GPU-01,GPU-00", [1, 0]), ("", []), ("-1", []), ("0,0", [])])
def test_cuda_visible_devices_is_honoured(value: str, shown: list[int], look: Look) -> None:
    seen = look("rtx4090-x2", env={"CUDA_VISIBLE_DEVICES": value})
    assert seen["visible_devices"] == value
    assert [device["gpu"] for device in seen["devices"]] == shown
    assert [gpu["visible"] for gpu in seen["gpus"]] == [index in shown for index in (0, 1)]


def test_memory_given_back_is_seen_by_a_running_process(machine: Any) -> None:
    code = """
import pathlib, sys
from mscli.inventory.detect import detect
from support.machines.nvml_machines import rewrite
env = {"MSCLI_TEST_MACHINE": sys.argv[1]}
for used in (23336, 512, 1):
    rewrite(env, lambda machine: machine["gpus"][0]["memory_mib"].update(used=used))
    print(detect(pathlib.Path("/")).gpus[0].memory_used_bytes >> 20)
"""
    env = machine("rtx4090-full")
    tests = str(SUPPORT.parent)
    assert child(code, {**env, "PYTHONPATH": tests}, env["MSCLI_TEST_MACHINE"]).split() == ["23336", "512", "1"]


def test_a_missing_library_hides_a_real_one_behind_it(machine: Any, nvml_library: Path) -> None:
    env = {**machine("rtx4090"), **machine(NO_DRIVER)}
    env["LD_LIBRARY_PATH"] += f":{nvml_library}"
    code = "import pathlib; from mscli.inventory.detect import detect; print(detect(pathlib.Path('/')).nvml.code)"
    assert child(code, env).strip() == "LIBRARY_NOT_FOUND"


@pytest.mark.parametrize("name", ["h100-x8", "rtx4090-x2-one-lost", "h100-mig"])
def test_one_look_is_one_nvml_session(name: str, look: Look, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    look(name, env={"MSCLI_TEST_NVML_LOG": str(log)})
    calls = log.read_text().splitlines()
    assert (calls[0], calls[-1]) == ("nvmlInitWithFlags", "nvmlShutdown")
    assert (calls.count("nvmlInitWithFlags"), calls.count("nvmlShutdown")) == (1, 1)


def test_a_refused_session_is_not_shut_down(look: Look, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    look("driver-mismatch", env={"MSCLI_TEST_NVML_LOG": str(log)})
    assert log.read_text().splitlines() == ["nvmlInitWithFlags"]


def test_looking_starts_no_program_and_sets_no_variable(machine: Any, tmp_path: Path) -> None:
    traps, sprung = tmp_path / "bin", tmp_path / "sprung"
    traps.mkdir()
    (traps / "nvidia-smi").write_text(f"#!/bin/sh\ntouch {sprung}\n")
    (traps / "nvidia-smi").chmod(0o755)
    code = """
import json, os, pathlib
before = dict(os.environ)
from mscli.inventory.detect import detect
detect(pathlib.Path("/"))
print(json.dumps(before == dict(os.environ)))
"""
    assert json.loads(child(code, {**machine("rtx4090-x2"), "PATH": str(traps)}))
    assert not sprung.exists()


def test_the_inventory_types_do_not_load_the_bindings() -> None:
    loaded = child("import sys, mscli.inventory.inventory, mscli.inventory.detect; print('pynvml' in sys.modules)", {})
    assert loaded.strip() == "False"


def test_a_description_changes_for_one_test_only(machine: Any) -> None:
    env = machine("rtx4090")
    rewrite(env, lambda description: description.update(driver="1.2"))
    assert json.loads(Path(machine("t4")["MSCLI_TEST_MACHINE"]).read_text())["driver"] == "580.95.05"
