"""NVIDIA's devices on the PCI bus as the kernel lists them, driver or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mscli.inventory.kernel import text_of

_VENDOR = "0x10de"
_DISPLAY, _BRIDGE = "0x03", "0x0680"


@dataclass(frozen=True)
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
