"""What `mscli up` chooses, installs and fetches on machines that hold a driver, Python and no engine.

    python benchmarks/fresh_machines.py            print the table
    python benchmarks/fresh_machines.py --write    put it into docs/reference/fresh-machines.md, after a review

The planner and the engines' own judgement of what can be installed, on imagined machines; nothing is fetched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mscli.catalog.gpus import load_gpus
from mscli.catalog.load import load_catalog
from mscli.engines.llamacpp.installation import build_for
from mscli.engines.mistralrs import installation as mistralrs
from mscli.engines.mistralrs.installation import ARCHIVE_BYTES as MISTRALRS_BYTES
from mscli.engines.mistralrs.installation import RELEASE as MISTRALRS
from mscli.engines.ollama.installation import ARCHIVE_BYTES as OLLAMA_BYTES
from mscli.engines.ollama.installation import VERSION as OLLAMA
from mscli.engines.vllm.installation import DOWNLOAD_BYTES as VLLM_BYTES
from mscli.engines.vllm.installation import version_for
from mscli.errors import MscliError
from mscli.inventory.inventory import Inventory
from mscli.lifecycle.decision import plan_all
from mscli.lifecycle.snapshot import Snapshot
from mscli.paths import shipped_profiles
from mscli.planning.described_machine import machine
from mscli.planning.known import Availability
from mscli.planning.plan import ENGINE_INSTALLABLE, ENGINE_MISSING, Overrides

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "fresh-machines.md"
HEAD = """\
# Fresh machines

What `mscli up` chooses, installs and fetches on a machine with a driver and Python, and no engine: Ubuntu 24.04 (glibc
2.39) where no other is named, the CUDA that the table says, no Vulkan loader. Written by `benchmarks/fresh_machines.py`
from the planner and the engines' own judgement; none of it ran on these cards. A test holds it.

| machine | CUDA | chooses | context | installs | fetches | why |
| --- | --- | --- | --- | --- | --- | --- |
"""
GB = 10**9


@dataclass(frozen=True)
class Fresh:
    """One machine: its cards in words, what a desktop holds on the first, the driver's CUDA, the glibc."""

    name: str
    cards: str
    cuda: str = "13.0"
    used_bytes: int = 0
    kind: str = "x64"
    slice_bytes: int | None = None
    glibc: tuple[int, int] = (2, 39)


MACHINES = (
    Fresh("1x RTX 4090", "RTX 4090"),
    Fresh("1x RTX 3090, a desktop on it", "RTX 3090", used_bytes=1200 << 20),
    Fresh("2x RTX 4090", "2x RTX 4090"),
    Fresh("H100 80 GB", "H100"),
    Fresh("2x RTX A6000", "2x RTX A6000"),
    Fresh("H100 80 GB, driver with CUDA 12.4, Ubuntu 22.04", "H100", "12.4", glibc=(2, 35)),
    Fresh("2x RTX 4090, driver with CUDA 12.8, Ubuntu 22.04", "2x RTX 4090", "12.8", glibc=(2, 35)),
    Fresh("1x RTX 4090, driver with CUDA 12.4, Ubuntu 22.04", "RTX 4090", "12.4", glibc=(2, 35)),
    Fresh("T4", "T4"),
    Fresh("T4, driver with CUDA 12.4, Ubuntu 22.04", "T4", "12.4", glibc=(2, 35)),
    Fresh("V100 16 GB", "V100 16GB", "12.8"),
    Fresh("GB10", "GB10", kind="arm64"),
    Fresh("MIG slice 3g.40gb of an H100", "H100", slice_bytes=39 << 30),
    Fresh("no GPU", ""),
)


def seen(fresh: Fresh) -> Inventory:
    """The machine as mscli would see it."""
    facts = load_gpus(shipped_profiles())
    found = machine(fresh.cards or "RTX 4090", facts, used_bytes=fresh.used_bytes)
    devices = found.devices if fresh.cards else ()
    if fresh.slice_bytes:
        devices = (replace(devices[0], total_bytes=fresh.slice_bytes, free_bytes=fresh.slice_bytes, mig=True),)
    return replace(found, cuda=fresh.cuda, devices=devices, gpus=found.gpus if fresh.cards else ())


Offered = tuple[Availability, str, int]


def offered(judged: Callable[[], tuple[str, int]]) -> Offered:
    """Whether an engine can be had, by what its own installation says of the machine; its name and its bytes."""
    try:
        return Availability(ENGINE_INSTALLABLE), *judged()
    except MscliError as refused:
        return Availability(ENGINE_MISSING, refused.message, refused.hint), "", 0


def engines(fresh: Fresh, inventory: Inventory) -> dict[str, Offered]:
    """Of each engine whether it can be had, what would be installed, and its bytes."""

    def llama() -> tuple[str, int]:
        build = build_for(inventory, fresh.kind, fresh.glibc, False)
        return f"llama.cpp ({build.name})", build.download_bytes

    def rust() -> tuple[str, int]:
        machine = {"x64": "x86_64", "arm64": "aarch64"}[fresh.kind]
        build = mistralrs.build_for(inventory, machine, fresh.glibc)
        return f"mistral.rs {MISTRALRS} ({build.name})", MISTRALRS_BYTES

    return {
        "ollama": (Availability(ENGINE_INSTALLABLE), f"Ollama {OLLAMA}", OLLAMA_BYTES),
        "vllm": offered(lambda: (f"vLLM {version_for(fresh.cuda, fresh.glibc)}", VLLM_BYTES)),
        "llama.cpp": offered(llama),
        "vllm-docker": (Availability(ENGINE_MISSING, "no container engine"), "", 0),
        "mistral.rs": offered(rust),
    }


def row(fresh: Fresh) -> tuple[str, ...]:
    """One machine's row."""
    catalog = load_catalog(shipped_profiles(), None)
    inventory = seen(fresh)
    if not inventory.devices:
        why = "no GPU; for the CPU by name: `mscli up small-cpu`, or `mscli up rehearsal` to try everything"
        return fresh.name, "", "nothing", "", "", "", why
    known = engines(fresh, inventory)
    here = Snapshot(
        inventory,
        facts=load_gpus(shipped_profiles()),
        engines={(name, "gpu"): state for name, (state, _, _) in known.items()},
    )
    automatic = [profile for profile in catalog.profiles.values() if profile.automatic]
    choice = plan_all(automatic, catalog.models, here, Overrides())
    if choice.chosen is None:
        remedy = known["llama.cpp"][0].remedy
        return fresh.name, fresh.cuda, "nothing", "", "", "", f"{choice.reason}. {remedy}"
    plan, (_, what, size) = choice.chosen, known[choice.chosen.engine]
    variant = catalog.models[plan.model].variants[plan.variant]
    context = f"{plan.context:,}"
    installs, fetches = f"{what}, {size / GB:.1f} GB", f"{plan.variant}, {variant.download_bytes / GB:.1f} GB"
    return fresh.name, fresh.cuda, f"`{plan.profile}`", context, installs, fetches, choice.reason


def lines() -> Iterator[str]:
    """The table's rows in Markdown."""
    for fresh in MACHINES:
        yield f"| {' | '.join(row(fresh))} |\n"


def page() -> str:
    """The whole page."""
    return HEAD + "".join(lines())


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page())
    else:
        sys.stdout.write(page())
