"""A machine that is not here, described in a file for `mscli plan --on FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mscli.catalog.document import Fault, invalid, read_document
from mscli.catalog.types import Key, Table, size, text

_MACHINE = Table(
    (
        Key("gpus", text(), 'its cards, as "2x RTX 4090 + RTX 3060"'),
        Key("free", size(1), "what is free on each of them; without it all that CUDA can give", None),
        Key("used", size(), "what a desktop holds on the first of them", 0),
        Key("ram", size(1), "the host's RAM", None),
    )
)


@dataclass(frozen=True)
class MachineFile:
    """The cards in words, and sizes in bytes; None where the file says nothing."""

    gpus: str
    free_bytes: int | None
    used_bytes: int
    ram_bytes: int | None


def read_machine(path: Path) -> MachineFile:
    """The machine in `path`. Raises MscliError(PROFILE_INVALID) with file, line and key."""
    document = read_document(path)
    faults: list[Fault] = []
    values = _MACHINE(document.root, (), faults)
    if faults:
        raise invalid(path, faults)
    return MachineFile(values["gpus"], values["free"], values["used"], values["ram"])
