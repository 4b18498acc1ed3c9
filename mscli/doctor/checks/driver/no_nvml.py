"""Why NVML does not answer: the same error has a dozen reasons.

They are told apart by what the kernel, the PCI bus and the package managers' logs show.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from mscli.doctor.checks.check import FAIL, CheckContext, Finding, fail, tail, warn
from mscli.doctor.checks.host import kernel_log
from mscli.doctor.checks.loader import MISSING, UNLISTED, load_fault, not_loaded
from mscli.frozen import frozen
from mscli.inventory.host import text_of
from mscli.inventory.inventory import Problem
from mscli.inventory.nvml import module_version

_NVML = "libnvidia-ml.so"
_WSL_LIBRARIES = "usr/lib/wsl/lib"
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_MODULE_FILE = re.compile(r"(?:^|/)nvidia\.ko", re.MULTILINE)
JOIN_GROUP = "Join the group that owns them (often video or render), then log in again."
READ_LOG = "sudo dmesg | grep -e NVRM -e nvidia"
PURGE_DRIVER = "sudo apt purge 'libnvidia-*' 'nvidia-*' && sudo ldconfig"
_REFUSED = re.compile(
    r"Loading of (?:unsigned module|module with unavailable key)|nvidia.*(?:Key was rejected|Required key|Lockdown)"
    r"|Lockdown: .*unsigned module",
    re.IGNORECASE,
)
_OPEN_ONLY = re.compile(r"requires? use of the NVIDIA open kernel modules")
_KERNEL_WORDS = re.compile(r"NVRM|nvidia: |nouveau .*(?:fail|error)")


def reason(ctx: CheckContext, problem: Problem) -> Finding:
    """The finding for an NVML that failed with `problem`."""
    told = _TOLD.get(problem.code, _other)
    return told(ctx, problem)


# ---- the library is not there ----


def _no_library(ctx: CheckContext, problem: Problem) -> Finding:
    where, root = ctx.inventory.host.surroundings, ctx.root
    fault = load_fault(ctx, "libnvidia-ml.so.1")
    if fault and fault.kind not in (MISSING, UNLISTED):
        return not_loaded("libnvidia-ml.so.1", fault, _loaded_version(root))
    if where == "wsl":
        return _wsl_without_library(root)
    if fault and fault.kind == UNLISTED:
        return not_loaded("libnvidia-ml.so.1", fault, _loaded_version(root))
    module = module_version(root / "proc")
    if module and where == "container":
        seen = f"NVIDIA module {module} loaded on the host, no driver libraries in this container"
        return fail("nvml_not_found", seen, None, _loaded_version(root))
    if module:
        remedy = (
            f"Install the driver's libraries of version {module} (libnvidia-compute, nvidia-utils), then run ldconfig."
        )
        seen = f"NVIDIA module {module} loaded, but not libnvidia-ml.so.1"
        return fail("nvml_not_found", seen, remedy, _loaded_version(root), command="ldconfig -p | grep libnvidia-ml")
    if gpus(root):
        return _not_loaded(ctx, problem)
    if where == "container":
        return warn("nvml_not_found", "no NVIDIA GPU in this container", "If the host has one: docker run --gpus all.")
    return _no_gpu(root)


def _no_gpu(root: Path) -> Finding:
    bus = "no NVIDIA GPU on the PCI bus" if (root / "sys/bus/pci/devices").is_dir() else "cannot read the PCI bus"
    remedy = "Models run on the CPU. In a virtual machine, pass a GPU through and install the NVIDIA driver."
    return warn("no_driver", f"{bus}, no NVIDIA driver installed", remedy)


def _wsl_without_library(root: Path) -> Finding:
    if (root / _WSL_LIBRARIES / "libnvidia-ml.so.1").exists():
        command = "echo /usr/lib/wsl/lib | sudo tee /etc/ld.so.conf.d/ld.wsl.conf && sudo ldconfig"
        seen = f"/{_WSL_LIBRARIES} has libnvidia-ml.so.1, but is not in the loader's search path"
        return fail("wsl", seen, "Add it:", command=command)
    gives = "" if (root / "dev/dxg").exists() else ", no /dev/dxg"
    return warn("wsl", f"no NVIDIA library from Windows in /{_WSL_LIBRARIES}{gives}", None)


# ---- the library is there, the module is not ----


def _not_loaded(ctx: CheckContext, problem: Problem) -> Finding:
    """In the order of what explains most: another driver on the GPU, no module, a refused one, one not loaded yet."""
    host, root = ctx.inventory.host, ctx.root
    if host.surroundings == "wsl":
        return _shadowed(problem)
    if module := module_version(root / "proc"):
        return _without_nodes(ctx, module)
    cards = gpus(root)
    shown = (*map(str, cards), *_kernel_words(ctx))
    taken = {card.driver for card in cards} - {None, "nvidia"}
    command = "sudo modprobe nvidia"
    if "vfio-pci" in taken:
        remedy = "Remove its IDs from the options of vfio-pci, then restart the machine."
        return fail("no_driver", "GPU bound to vfio-pci (reserved for virtual machines)", remedy, *shown)
    if "nouveau" in taken:
        remedy = "Install the NVIDIA driver, which blacklists nouveau, and restart the machine."
        return fail("no_driver", "GPU bound to nouveau, which has no CUDA", remedy, *shown)
    if not cards:
        seen = "NVIDIA libraries installed, but no kernel module loaded and no NVIDIA GPU on the PCI bus"
        return fail("no_driver", seen, None, problem.message, *shown)
    if refusal := _refusal(ctx):
        return refusal
    installed = _kernels_with_module(root)
    if installed is not None and host.kernel not in installed:
        others = f"modules for: {', '.join(installed) or 'no kernel'}"
        remedy = f"Install linux-headers-{host.kernel} and rebuild the module, or boot another kernel:"
        seen = f"no NVIDIA module for the running kernel {host.kernel}"
        return fail("no_driver", seen, remedy, others, *shown, command="sudo dkms autoinstall")
    return fail("no_driver", "NVIDIA kernel module not loaded", None, *shown, command=command)


def _refusal(ctx: CheckContext) -> Finding | None:
    """The kernel will not have the module: Secure Boot, or a GPU that only the open module drives."""
    lines = kernel_log(ctx).matching(_REFUSED)
    if needs := kernel_log(ctx).matching(_OPEN_ONLY):
        remedy = "Install the open kernel modules (package nvidia-open or nvidia-driver-NNN-open)."
        return fail("no_driver", "this GPU needs NVIDIA's open kernel modules", remedy, needs[-1].text)
    if not lines and not (
        _secure_boot(ctx.root) and ctx.inventory.host.kernel in (_kernels_with_module(ctx.root) or ())
    ):
        return None
    state = "Secure Boot on" if _secure_boot(ctx.root) else "kernel accepts signed modules only"
    remedy = (
        "Sign the module and enroll the key (sudo mokutil --import /var/lib/shim-signed/mok/MOK.der, restart, "
        "confirm), or disable Secure Boot."
    )
    seen = f"NVIDIA kernel module not loaded ({state})"
    return fail("no_driver", seen, remedy, *(line.text for line in lines[-2:]), command="mokutil --sb-state")


def _secure_boot(root: Path) -> bool:
    """The firmware's variable: four bytes of attributes, then 1 for on."""
    try:
        return (root / _SECURE_BOOT).read_bytes()[4:5] == b"\x01"
    except OSError:
        return False


def _kernels_with_module(root: Path) -> list[str] | None:
    """The installed kernels that have an NVIDIA module by their own lists; None where no list can be read."""
    lists = sorted((root / "lib/modules").glob("*/modules.dep"))
    return [path.parent.name for path in lists if _MODULE_FILE.search(text_of(path))] if lists else None


def _kernel_words(ctx: CheckContext) -> tuple[str, ...]:
    return tuple(line.text for line in kernel_log(ctx).matching(_KERNEL_WORDS)[-3:])


def _shadowed(problem: Problem) -> Finding:
    """WSL has no kernel module: a libnvidia-ml of a Linux driver looks for one in vain."""
    path = loaded(_NVML)
    if path and not path.startswith(f"/{_WSL_LIBRARIES}") and "/wsl/" not in path:
        seen = f"{path} loaded instead of WSL's libnvidia-ml (WSL has no kernel module)"
        return fail("wsl", seen, "Remove the Linux driver inside WSL:", problem.message, command=PURGE_DRIVER)
    return fail("wsl", "the Windows driver does not answer", None, problem.message)


def _without_nodes(ctx: CheckContext, module: str) -> Finding:
    seen = f"NVIDIA module {module} loaded, device files not usable"
    nodes = sorted(node.name for node in (ctx.root / "dev").glob("nvidia*"))
    shown = f"/dev has {', '.join(nodes)}" if nodes else "no /dev/nvidia*"
    if ctx.inventory.host.surroundings == "container":
        return fail("docker_gpu", f"{seen} in this container", None, shown)
    return fail("no_driver", seen, "Create them:", shown, command="sudo nvidia-modprobe -u -c 0")


# ---- the two are there ----


def _mismatch(ctx: CheckContext, problem: Problem) -> Finding:
    module, library = module_version(ctx.root / "proc"), release_of(loaded(_NVML))
    seen = f"driver library {library or 'of another version'}, loaded kernel module {module or 'unknown'}"
    shown = (problem.message, *last_upgrades(ctx.root))
    return fail("nvml_mismatch", seen, None, *shown, command="sudo reboot")


def _no_permission(ctx: CheckContext, problem: Problem) -> Finding:
    """By the files' rights, or, where those are open, by the container's control group, which lost them."""
    nodes = sorted((ctx.root / "dev").glob("nvidia*"))
    allowed = nodes and all(os.access(node, os.R_OK | os.W_OK) for node in nodes if not node.is_dir())
    if allowed and ctx.inventory.host.surroundings == "container":
        seen = "this container has lost access to its GPUs (cgroup), although file permissions allow it"
        return fail("container_gpu_lost", seen, None, problem.message)
    seen = "no permission to open the NVIDIA device files"
    return fail("permissions", seen, JOIN_GROUP, problem.message, command="ls -l /dev/nvidia*")


def _broken(ctx: CheckContext, problem: Problem) -> Finding:
    words = _kernel_words(ctx)
    return fail("xid", f"the driver cannot reach the GPU: {problem.message}", None, *words)


def _other(ctx: CheckContext, problem: Problem) -> Finding:
    if ctx.inventory.host.surroundings == "container":
        return fail("container_gpu_lost", problem.message, None)
    return Finding(FAIL, problem.message, None, _kernel_words(ctx), "Look at the kernel log:", READ_LOG)


_TOLD: Mapping[str, Callable[[CheckContext, Problem], Finding]] = {
    "LIBRARY_NOT_FOUND": _no_library,
    "DRIVER_NOT_LOADED": _not_loaded,
    "LIB_RM_VERSION_MISMATCH": _mismatch,
    "NO_PERMISSION": _no_permission,
    "GPU_IS_LOST": _broken,
    "RESET_REQUIRED": _broken,
    "TIMEOUT": _broken,
    "IRQ_ISSUE": _broken,
}


def loaded(library: str) -> str | None:
    """The file that this process has mapped for a library, links resolved; None where it is not loaded."""
    for line in text_of(Path("/proc/self/maps")).splitlines():
        path = line.partition("/")[2]
        if library in path:
            return f"/{path}"
    return None


def release_of(path: str | None) -> str | None:
    """The driver's release in a library's file name: libnvidia-ml.so.570.124.04."""
    found = re.search(r"\.so\.(\d+\.\d+(?:\.\d+)?)$", path or "")
    return found[1] if found else None


def _loaded_version(root: Path) -> str:
    return text_of(root / "proc/driver/nvidia/version").partition("\n")[0].strip()


_LOGS = ("var/log/dpkg.log", "var/log/dnf.rpm.log", "var/log/pacman.log", "var/log/zypp/history")
# dpkg: "2026-11-20 06:12:11 upgrade libnvidia-compute-570:amd64 570.124.04 570.124.06"; the others name the package in
# the same line, too.
_UPGRADE = re.compile(r"\b(?:upgraded?|installed?|Upgraded?|Installed?)\b.*nvidia|\|install\|.*nvidia", re.IGNORECASE)
_NOISE = re.compile(r" status | configure | trigproc ")
_READ_BYTES = 2**20


def last_upgrades(root: Path, most: int = 3) -> tuple[str, ...]:
    """The last lines in which NVIDIA's packages were installed or upgraded, oldest first; none where no log tells."""
    for name in _LOGS:
        found = [
            line
            for line in tail(root / name, _READ_BYTES).splitlines()
            if _UPGRADE.search(line) and not _NOISE.search(line)
        ]
        if found:
            return tuple(found[-most:])
    return ()


_VENDOR = "0x10de"
_DISPLAY, _BRIDGE = "0x03", "0x0680"


@frozen
class PciDevice:
    """`kind`: gpu or nvswitch. `driver`: the kernel driver bound to it (nvidia, nouveau, vfio-pci), None for none."""

    address: str
    kind: str
    driver: str | None

    def __str__(self) -> str:
        return f"{self.address} ({self.kind}, kernel driver: {self.driver or 'none'})"


def nvidia_devices(root: Path) -> tuple[PciDevice, ...]:
    """GPUs and NVSwitches, by address. `root` stands for /."""
    folder = root / "sys/bus/pci/devices"
    devices = sorted(folder.iterdir()) if folder.is_dir() else []
    return tuple(found for device in devices if (found := _device(device)))


def _device(device: Path) -> PciDevice | None:
    if text_of(device / "vendor").strip() != _VENDOR:
        return None
    number = text_of(device / "class").strip()
    kind = "gpu" if number.startswith(_DISPLAY) else "nvswitch" if number.startswith(_BRIDGE) else None
    driver = device / "driver"
    return PciDevice(device.name, kind, driver.resolve().name if driver.exists() else None) if kind else None


def gpus(root: Path) -> tuple[PciDevice, ...]:
    """Its GPUs alone."""
    return tuple(device for device in nvidia_devices(root) if device.kind == "gpu")
