"""Each way in which NVIDIA's driver can be missing, broken, old or half there, and the cause that is named for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.doctor.doctor_site import KERNEL, RELEASE, Site
from support.machines.nvml_machines import NO_DRIVER

NOT_LOADED, MISMATCH = "driver-not-loaded", "driver-mismatch"


def test_a_healthy_driver_is_named_with_its_release(site: Site) -> None:
    site.card()
    site.module()
    found = site.look("rtx4090", "driver")
    assert found.fails == found.warnings == []
    assert RELEASE in found.one("driver.nvml")["seen"]
    assert found.verdict("driver.release") == ("ok", None)


# ---- NVML does not answer ----


def test_no_gpu_on_the_bus_and_no_driver_is_a_warning(site: Site) -> None:
    found = site.look(NO_DRIVER, "driver,gpu,cuda")
    assert found.verdict("driver.nvml") == ("warn", "no_driver")
    assert "PCI bus" in found.one("driver.nvml")["seen"]
    assert found.fails == []


def test_one_cause_is_one_failure_and_the_rest_is_skipped_with_the_reason(site: Site) -> None:
    site.card(driver=None)
    found = site.look(NO_DRIVER, "driver,gpu,cuda")
    assert found.fails == [("driver.nvml", "no_driver")]
    assert found.warnings == []
    assert all("driver.nvml" in finding["seen"] for finding in found.findings if finding["id"].startswith("gpu."))


def test_a_loaded_module_without_libraries(site: Site) -> None:
    site.card()
    site.module()
    assert site.look(NO_DRIVER, "driver").verdict("driver.nvml") == ("fail", "nvml_not_found")


def test_a_container_that_was_started_without_gpus(site: Site) -> None:
    site.card()
    site.module()
    site.container()
    found = site.look(NO_DRIVER, "driver").one("driver.nvml")
    assert (found["status"], found["code"]) == ("fail", "nvml_not_found")
    assert "--gpus all" in found["remedy"]


def test_a_container_with_libraries_but_without_device_files(site: Site) -> None:
    site.module()
    site.container()
    assert site.look(NOT_LOADED, "driver").verdict("driver.nvml") == ("fail", "docker_gpu")


def test_a_container_on_a_host_without_a_gpu(site: Site) -> None:
    site.container()
    assert site.look(NO_DRIVER, "driver").verdict("driver.nvml") == ("warn", "nvml_not_found")


def test_a_loaded_module_without_device_files(site: Site) -> None:
    site.card()
    site.module()
    found = site.look(NOT_LOADED, "driver").one("driver.nvml")
    assert (found["status"], found["code"]) == ("fail", "no_driver")
    assert "nvidia-modprobe" in found["command"]


def test_an_error_of_nvml_that_says_nothing_is_a_failure_without_a_cause(site: Site) -> None:
    found = site.look("rtx4090", "driver", lambda one: one.update(init_error=999))
    assert found.verdict("driver.nvml") == ("fail", None)


def test_a_container_whose_gpus_were_taken_away(site: Site) -> None:
    site.container()
    edit = {"init_error": 999}
    found = site.look("rtx4090", "driver", lambda one: one.update(edit))
    assert found.verdict("driver.nvml") == ("fail", "container_gpu_lost")


def test_a_container_that_may_not_open_its_open_device_files(site: Site) -> None:
    site.container()
    site.put("dev/nvidia0")
    site.put("dev/nvidiactl")
    assert site.look("nvml-no-permission", "driver").verdict("driver.nvml") == ("fail", "container_gpu_lost")


def test_a_user_who_may_not_open_the_device_files(site: Site) -> None:
    assert site.look("nvml-no-permission", "driver").verdict("driver.nvml") == ("fail", "permissions")


def test_no_module_for_the_running_kernel(site: Site) -> None:
    site.card(driver=None)
    site.put(f"lib/modules/{KERNEL}/modules.dep", "kernel/fs/ext4/ext4.ko:\n")
    site.put("lib/modules/6.8.0-41-generic/modules.dep", "updates/dkms/nvidia.ko.zst:\n")
    found = site.look(NOT_LOADED, "driver").one("driver.nvml")
    assert (found["status"], found["code"]) == ("fail", "no_driver")
    assert KERNEL in found["seen"]
    assert "modules for: 6.8.0-41-generic" in found["evidence"]
    assert f"linux-headers-{KERNEL}" in found["remedy"]


def _installed(site: Site) -> None:
    site.card(driver=None)
    site.put(f"lib/modules/{KERNEL}/modules.dep", "updates/dkms/nvidia.ko.zst:\n")


def test_a_module_that_was_not_loaded_yet(site: Site) -> None:
    _installed(site)
    found = site.look(NOT_LOADED, "driver").one("driver.nvml")
    assert found["code"] == "no_driver"
    assert found["command"] == "sudo modprobe nvidia"


def test_secure_boot_that_keeps_the_module_out(site: Site) -> None:
    _installed(site)
    variable = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    site.put(variable).write_bytes(b"\x06\0\0\0\x01")
    found = site.look(NOT_LOADED, "driver").one("driver.nvml")
    assert found["code"] == "no_driver"
    assert "Secure Boot on" in found["seen"]
    assert "mokutil" in found["remedy"]


def test_a_module_that_the_kernel_rejected(site: Site) -> None:
    _installed(site)
    site.kernel_says("[   12.000000] Loading of module with unavailable key is rejected")
    found = site.look(NOT_LOADED, "driver").one("driver.nvml")
    assert "signed" in found["seen"]
    assert found["evidence"] == ["Loading of module with unavailable key is rejected"]


def test_a_gpu_that_needs_the_open_module(site: Site) -> None:
    _installed(site)
    line = "NVRM: installed in this system requires use of the NVIDIA open kernel modules."
    site.kernel_says(f"[   12.000000] {line}")
    found = site.look(NOT_LOADED, "driver").one("driver.nvml")
    assert "open kernel modules" in found["seen"]
    assert found["evidence"] == [line]


@pytest.mark.parametrize("driver", ["nouveau", "vfio-pci"])
def test_another_driver_that_holds_the_gpu(site: Site, driver: str) -> None:
    site.card(driver=driver)
    found = site.look(NOT_LOADED, "driver").one("driver.nvml")
    assert found["code"] == "no_driver"
    assert driver in found["seen"]


def test_a_linux_driver_inside_wsl(site: Site) -> None:
    site.wsl()
    found = site.look(NOT_LOADED, "driver").one("driver.nvml")
    assert (found["status"], found["code"]) == ("fail", "wsl")
    assert "libnvidia-ml" in found["seen"]


def test_wsl_whose_loader_does_not_look_where_windows_puts_its_libraries(site: Site) -> None:
    site.wsl()
    site.put("usr/lib/wsl/lib/libnvidia-ml.so.1")
    assert site.look(NO_DRIVER, "driver").verdict("driver.nvml") == ("fail", "wsl")


def test_wsl_without_an_nvidia_gpu_on_the_windows_side(site: Site) -> None:
    site.wsl()
    assert site.look(NO_DRIVER, "driver").verdict("driver.nvml") == ("warn", "wsl")


def test_a_gpu_that_is_lost_before_nvml_starts(site: Site) -> None:
    site.kernel_says("[   99.000000] NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.")
    found = site.look("rtx4090", "driver", lambda one: one.update(init_error=15)).one("driver.nvml")
    assert (found["status"], found["code"]) == ("fail", "xid")
    assert "Xid" in found["evidence"][0]


def test_an_nvml_that_shows_none_of_the_gpus_on_the_bus(site: Site) -> None:
    site.card()
    found = site.look("rtx4090", "driver", lambda one: one.update(gpus=[]))
    assert found.verdict("driver.nvml") == ("fail", "xid")


# ---- releases ----


def test_a_mismatch_is_told_to_the_last_digit_with_the_upgrade_that_made_it(site: Site, nvml_library: Path) -> None:
    site.module("570.124.04")
    upgrade = "2026-11-20 06:12:11 upgrade libnvidia-compute-570:amd64 570.124.04-0ubuntu1 570.124.06-0ubuntu1"
    noise = "2026-11-20 06:12:12 status installed libnvidia-compute-570:amd64 570.124.06-0ubuntu1"
    site.put("var/log/dpkg.log", f"2026-11-19 upgrade bash:amd64 1 2\n{upgrade}\n{noise}\n")
    folder = site.root / "libraries"
    folder.mkdir()
    shutil.copy(nvml_library / "libnvidia-ml.so.1", folder / "libnvidia-ml.so.570.124.06")
    (folder / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.570.124.06")
    found = site.look(MISMATCH, "driver,gpu,cuda", env={"LD_LIBRARY_PATH": str(folder)})
    assert found.fails == [("driver.nvml", "nvml_mismatch")]
    assert "570.124.06" in found.one("driver.nvml")["seen"]
    assert "570.124.04" in found.one("driver.nvml")["seen"]
    assert found.one("driver.nvml")["evidence"][1:] == [upgrade]


def test_a_module_of_another_release_than_the_library_that_answers(site: Site) -> None:
    site.module("580.95.04")
    assert site.look("rtx4090", "driver").fails == [("driver.release", "nvml_mismatch")]


@pytest.mark.parametrize(
    ("cuda", "verdict"),
    [("11.8", "fail"), ("12.2", "warn"), ("12.4", "warn"), ("12.8", "ok"), ("13.0", "ok")],
)
def test_a_driver_too_old_for_the_engines_of_today(site: Site, cuda: str, verdict: str) -> None:
    found = site.look("rtx4090", "driver", lambda one: one.update(cuda=cuda))
    assert found.verdict("driver.cuda") == (verdict, None if verdict == "ok" else "driver_too_old")


# ---- device files ----


@pytest.fixture
def open_tree() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="mscli-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


ACCESS = """
import os, pathlib, sys
from mscli.doctor.checks.driver import closed_nodes
if os.getuid() == 0:  # whom no mode keeps out
    os.setuid(65534)
print([path.name for path in closed_nodes(pathlib.Path(sys.argv[1]))])
"""


def test_device_files_that_this_user_may_not_open(open_tree: Path) -> None:
    (open_tree / "dev").mkdir()
    for name, mode in (("nvidia0", 0), ("nvidiactl", 0o666), ("nvidia-uvm", 0)):
        (open_tree / "dev" / name).touch()
        (open_tree / "dev" / name).chmod(mode)
    done = subprocess.run([sys.executable, "-c", ACCESS, str(open_tree)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['nvidia0', 'nvidia-uvm']", done.stderr


# ---- NVSwitch ----


@pytest.mark.parametrize("fabric", [{"state": 1}, {"state": 2}, {"state": 3, "status": 999}])
def test_an_nvswitch_fabric_that_is_not_up(site: Site, fabric: dict[str, int]) -> None:
    site.program("systemctl", "echo inactive; exit 3")
    found = site.look("h100-x8", "driver", lambda one: one["gpus"][0].update(fabric=fabric)).one("driver.fabric")
    assert (found["status"], found["code"]) == ("fail", "fabric_manager")
    assert found["evidence"] == ["nvidia-fabricmanager is inactive"]


def test_a_fabric_manager_of_another_release(site: Site) -> None:
    site.program("nv-fabricmanager", "echo Fabric Manager version is : 580.65.06")
    found = site.look("h100-x8", "driver", lambda one: one["gpus"][0].update(fabric={"state": 3}))
    assert found.verdict("driver.fabric") == ("fail", "fabric_manager")


def test_nvswitches_whose_fabric_manager_is_stopped(site: Site) -> None:
    site.card("0000:c0:00.0", kind="0x068000")
    site.program("systemctl", "echo failed; exit 3")
    assert site.look("a100-80", "driver").verdict("driver.fabric") == ("fail", "fabric_manager")


def test_a_fabric_that_is_up(site: Site) -> None:
    found = site.look("h100-x8", "driver", lambda one: one["gpus"][0].update(fabric={"state": 3}))
    assert found.verdict("driver.fabric") == ("ok", None)
