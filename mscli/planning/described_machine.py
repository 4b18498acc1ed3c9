"""A machine that is not here: an inventory made from cards' names or from a file, for planning without the hardware."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mscli.catalog.document import Fault, invalid, read_document
from mscli.catalog.gpus import GpuFacts
from mscli.catalog.types import Key, Table, size, text
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.inventory.inventory import Device, Gpu, Host, Inventory, Mig, Problem
from mscli.planning.devices import cuda_total
from mscli.planning.plan import GIB

ASSUMED_RAM = 64 * GIB
MOST_CARDS = 64
# Short names that mean one card to everyone although several carry them.
COMMON = {
    "h100": "NVIDIA H100 80GB HBM3",
    "a100": "NVIDIA A100-SXM4-80GB",
    "rtx pro 6000": "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
}
# A card that no list has: its memory and compute capability, "24 GB 8.6". Its speed is unknown.
_ANY_CARD = re.compile(r"([0-9]{1,4})\s*GI?B\s+([0-9]{1,2}\.[0-9])", re.IGNORECASE)
FILLERS = {"nvidia", "geforce", "tesla", "gpu", "generation", "edition", "blackwell", "gb", "graphics", "card"}


def machine(
    text: str,
    facts: Mapping[str, GpuFacts],
    free_bytes: int | None = None,
    ram_bytes: int | None = None,
    used_bytes: int = 0,
) -> Inventory:
    """The inventory of "2x RTX 4090", "RTX 4090 x2", "RTX 4090 + RTX 3060", or "2x 24 GB 8.6" for cards of no list.

    `free_bytes`: free on every GPU; without it all that CUDA can give, less `used_bytes` on the first (a desktop).
    `ram_bytes`: host RAM, all of it available; 64 GiB where nothing is said. Raises MscliError(USAGE) for a card that
    is not known, with the nearest name.
    """
    cards = cards_of(text, facts)
    unified = next((card for card in cards if card.memory_total_bytes is None), None)
    ram = ram_bytes or (unified.marketed_gb * 10**9 if unified else ASSUMED_RAM)
    devices, gpus = [], []
    for index, card in enumerate(cards):
        total = card.memory_total_bytes
        free = None if total is None else _free(total, free_bytes, used_bytes if index == 0 else 0)
        devices.append(
            Device(index, f"GPU-what-if-{index}", _nvml_name(card), total, free, card.compute_capability, False, ())
        )
        gpus.append(_gpu(devices[-1]))
    said = () if ram_bytes or unified else (Problem("ram", "ASSUMED", "assuming 64 GiB of host RAM"),)
    return Inventory(None, None, None, tuple(gpus), (), tuple(devices), _host(ram), None, said)


def cards_of(text: str, facts: Mapping[str, GpuFacts]) -> tuple[GpuFacts, ...]:
    """The cards that "2x RTX 4090 + RTX 3060" names, in order. Raises MscliError(USAGE) for one that is not known."""
    found: list[GpuFacts] = []
    for part in re.split(r"[+,;]", text):
        part = re.sub(r"^(.*\S)\s+[x×*]\s*([0-9]+)\s*$", r"\2x \1", part, flags=re.IGNORECASE)
        match = re.fullmatch(r"\s*(?:([0-9]+)\s*[x×*]\s*)?(.*?)\s*", part, re.IGNORECASE)
        if not match or not match[2] or (match[1] and not match[1].strip("0")):
            raise MscliError(
                Code.USAGE, f"cannot read '{text}' as a machine", 'Write it as "2x RTX 4090" or "RTX 4090 + RTX 3060".'
            )
        count = int(match[1][:9]) if match[1] else 1
        if len(found) + count > MOST_CARDS:
            message = f"a machine of more than {MOST_CARDS} GPUs cannot be planned"
            raise MscliError(Code.USAGE, message, "mscli plans for one machine at a time")
        found += [_any_card(match[2]) or find_card(match[2], facts)] * count
    return tuple(found)


def _any_card(text: str) -> GpuFacts | None:
    """The card that "24 GB 8.6" describes; None for a name. Formats by compute capability, as NVIDIA's documents have
    them: BF16 from 8.0, FP8 from 8.9, FP4 from 10.0."""
    told = _ANY_CARD.fullmatch(text.strip())
    if told is None:
        return None
    size, capability = int(told[1]), float(told[2])
    return GpuFacts(
        f"GPU of {size} GB", "unknown", told[2], size, size * GIB, 0.0, False, capability >= 8.0,
        capability >= 8.9, capability >= 10.0, None, "described by hand",
    )  # fmt: skip


def find_card(name: str, facts: Mapping[str, GpuFacts]) -> GpuFacts:
    """The card that `name` means: all its words are in the card's name, and no other needs fewer more.

    Raises MscliError(USAGE) when none or several do.
    """
    common = COMMON.get(" ".join(_words(name)))
    if common in facts:
        return facts[str(common)]
    words = set(_words(name))
    ranked = (
        sorted(
            (len(set(_words(card.name)) - words), position, card)
            for position, card in enumerate(facts.values())
            if words <= set(_words(card.name))
        )
        if words
        else []
    )
    if not ranked:
        raise MscliError(Code.USAGE, f"unknown GPU '{name.strip()}'", _instead(name, facts))
    best = [card for extra, _, card in ranked if extra == ranked[0][0]]
    if len({card.memory_total_bytes for card in best}) > 1:
        names = ", ".join(card.name for card in best)
        raise MscliError(
            Code.USAGE,
            f"'{name.strip()}' matches several GPUs: {names}",
            f"Write the whole name, for example '{best[0].name}'.",
        )
    return best[0]


def _instead(name: str, facts: Mapping[str, GpuFacts]) -> str:
    """What to type in place of a name that no card has."""
    sized = re.fullmatch(r"\s*([0-9]{1,4})\s*(GI?B?)?\s*", name, re.IGNORECASE)
    if sized:
        return f'Add its compute capability: "{sized[1]} GB 8.6". To list GPUs by name: mscli plan --on list'
    nearest = _nearest(name, facts)
    meant = f"Did you mean {nearest}? " if nearest else ""
    return f'{meant}To list GPUs: mscli plan --on list. For any other: --on "24 GB 8.6" (memory, compute capability)'


def _nearest(name: str, facts: Mapping[str, GpuFacts]) -> str | None:
    from difflib import get_close_matches  # only for a wrong word

    known = {" ".join(_words(key)): key for key in facts} | COMMON
    close = get_close_matches(" ".join(_words(name)), known, n=1, cutoff=0.0)
    return known[close[0]] if close else None


def _words(name: str) -> list[str]:
    """The telling words of a name: "NVIDIA A100-SXM4-80GB" -> a100, sxm4, 80."""
    split = re.sub(r"(?<!\d)(\d+)\s*gi?b\b", r"\1", name.lower())
    split = re.sub(r"\b([rg]tx)(?=\d)|(?<=\d)(?=ti\b|super\b)", r"\1 ", split)
    return [word for word in re.findall(r"[a-z0-9]+", split) if word not in FILLERS]


def _nvml_name(card: GpuFacts) -> str:
    return re.sub(r" \(\d+GB\)$", "", card.name)


def _free(total_bytes: int, free_bytes: int | None, used_bytes: int) -> int:
    most = cuda_total(total_bytes)
    return min(most, free_bytes) if free_bytes is not None else max(0, most - used_bytes)


def _gpu(device: Device) -> Gpu:
    used = None if device.total_bytes is None or device.free_bytes is None else device.total_bytes - device.free_bytes
    return Gpu(
        device.gpu, device.uuid, device.name, None, device.total_bytes, used, device.free_bytes,
        device.compute_capability, None, None, None, None, device.total_bytes is None, Mig("unsupported", ()), (), (),
        True,
    )  # fmt: skip


def _host(ram_bytes: int) -> Host:
    return Host("bare", "", ram_bytes, ram_bytes, "", (), 0, Path("/"), None)


_MACHINE = Table(
    (
        Key("gpus", text(), 'its cards, as "2x RTX 4090 + RTX 3060"'),
        Key("free", size(1), "free memory on each GPU (default: all that CUDA can use)", None),
        Key("used", size(), "memory that a desktop uses on the first GPU", 0),
        Key("ram", size(1), "the host's RAM", None),
    )
)


@frozen
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
