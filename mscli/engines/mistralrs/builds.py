"""The project's own archives of mistral.rs with CUDA: which of them runs on the GPUs of a machine.

Each is built for one compute capability and one CUDA, whose libraries it brings along. Names, targets and the image
that they are built in: .github/workflows/release.yml of v0.9.2; the CUDA that a driver must offer: its install.sh.
"""

from __future__ import annotations

import re

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.inventory.inventory import Inventory

Version = tuple[int, ...]
GLIBC: Version = (2, 35)  # built on Ubuntu 22.04
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_X64, _ARM = ("80", "86", "89", "90", "100", "120"), ("90", "100", "121")
# Newest first: CUDA, and the compute capabilities that it was built for on each kind of machine.
_BUILT = (
    ((13, 3), {"x86_64": ("90",), "aarch64": ("90",)}),
    ((13, 2), {"x86_64": ("80", "86", "89", "100", "120"), "aarch64": ("100", "121")}),
    ((13, 1), {"x86_64": _X64, "aarch64": _ARM}),
    ((13, 0), {"x86_64": _X64, "aarch64": _ARM}),
    ((12, 9), {"aarch64": ("121",)}),
    ((12, 8), {"x86_64": _X64, "aarch64": ("90", "100")}),
)


@frozen
class Build:
    """One archive. `sm`: the compute capability without its dot."""

    cuda: Version
    sm: str
    machine: str

    @property
    def archive(self) -> str:
        """Its name in a release."""
        return f"mistralrs-cuda{''.join(map(str, self.cuda))}-sm{self.sm}-{self.machine}-unknown-linux-gnu.tar.gz"

    @property
    def name(self) -> str:
        """For people."""
        return f"CUDA {'.'.join(map(str, self.cuda))}, sm{self.sm}"


def build_for(inventory: Inventory, machine: str, system: Version | None) -> Build:
    """The newest build for the GPUs of `inventory`, on a machine called `machine` with the glibc `system` (None:
    another C library). Raises ENGINE_UNSUPPORTED with what is in the way and the way on."""
    kind = MACHINES.get(machine.lower())
    if kind is None:
        raise _none(f"there is none for {machine}")
    if system is None or system < GLIBC:
        here = f"glibc {'.'.join(map(str, system))}" if system else "another C library"
        raise _none(f"they need glibc {'.'.join(map(str, GLIBC))}, this machine has {here}")
    capabilities = sorted({device.compute_capability or "unknown" for device in inventory.devices})
    if len(capabilities) != 1:
        raise _none(f"each is for one compute capability, these GPUs have {', '.join(capabilities) or 'none'}")
    driver, sm = tuple(map(int, re.findall(r"\d+", inventory.cuda or "")[:2])), capabilities[0].replace(".", "")
    built = [cuda for cuda, kinds in _BUILT if sm in kinds.get(kind, ())]
    if not built:
        raise _none(f"none is built for compute capability {capabilities[0]} on {kind}")
    found = next((cuda for cuda in built if driver >= cuda), None)
    if found is None:
        oldest = ".".join(map(str, built[-1]))
        raise _none(f"they need a driver with CUDA {oldest}, this one offers {inventory.cuda or 'an unknown one'}")
    return Build(found, sm, kind)


def _none(reason: str) -> MscliError:
    return MscliError(
        Code.ENGINE_UNSUPPORTED,
        f"no official mistral.rs archive runs on this machine: {reason}",
        "Compile it (cargo install mistralrs-cli --features cuda) and put mistralrs on PATH, or use a profile on "
        "another engine: mscli profiles",
    )
