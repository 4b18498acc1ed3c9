"""NVIDIA's Xid numbers, as far as they tell a model's user what to do. Source: NVIDIA, "Xid Errors" (the catalogue in
the GPU deployment and management documents).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# "NVRM: Xid (PCI:0000:b3:00): 79, pid=1234, GPU has fallen off the bus."
XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")
# Without any Xid: three lines of NVRM, of which the last says so.
OFF_BUS = re.compile(r"fallen off\s+the\s+bus|RmInitAdapter failed|rm_init_adapter failed")
# Xid 154 is also written when a GPU needs nothing (any more).
NO_ACTION = re.compile(r"\): 154,.*\(None\)")


@dataclass(frozen=True)
class Xid:
    """`whose`: program (a program did it, the GPU is well), memory (ECC), gpu (hardware or driver)."""

    meaning: str
    whose: str


XIDS: Mapping[int, Xid] = {
    13: Xid("graphics engine exception: a program's invalid access, seldom hardware", "program"),
    31: Xid("memory page fault: a program's invalid address, seldom hardware", "program"),
    32: Xid("invalid push buffer stream: bus or program", "gpu"),
    38: Xid("driver firmware error", "gpu"),
    43: Xid("a program stopped because of its own fault", "program"),
    45: Xid("a program's work was cleared away, after an earlier error or a kill", "program"),
    48: Xid("double bit ECC error, which cannot be corrected", "memory"),
    61: Xid("internal micro-controller warning", "gpu"),
    62: Xid("internal micro-controller halt", "gpu"),
    63: Xid("a memory row or page was set aside for good", "memory"),
    64: Xid("a memory row or page could not be set aside", "memory"),
    68: Xid("video decoder exception", "program"),
    69: Xid("graphics engine class error", "program"),
    74: Xid("NVLink error", "gpu"),
    79: Xid("the GPU has fallen off the bus", "gpu"),
    92: Xid("many corrected memory errors", "memory"),
    94: Xid("contained memory error: the program that met it was stopped", "memory"),
    95: Xid("uncontained memory error: the GPU must be reset", "memory"),
    109: Xid("a context switch took too long", "gpu"),
    119: Xid("the GPU's system processor (GSP) does not answer", "gpu"),
    120: Xid("the GPU's system processor (GSP) met an error", "gpu"),
    140: Xid("ECC error that was not recovered", "memory"),
    143: Xid("the GPU could not be initialised", "gpu"),
    154: Xid("the GPU needs a reset or a restart", "gpu"),
}
UNKNOWN = Xid("not in mscli's list; NVIDIA's Xid catalogue has it", "gpu")


def xid_of(text: str) -> tuple[int, Xid] | None:
    """The Xid in a line of the kernel's log."""
    found = XID.search(text)
    if found is None or NO_ACTION.search(text):
        return None
    number = int(found[2])
    return number, XIDS.get(number, UNKNOWN)
