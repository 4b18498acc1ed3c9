"""The decision table: what mscli chooses on every known card, at 1, 2, 4 and 8 cards, headless and as a desktop.

python benchmarks/decisions.py            show what differs from benchmarks/decisions.csv
python benchmarks/decisions.py --write    write the table anew, to be reviewed row by row
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from mscli.catalog.gpus import load_gpus
from mscli.catalog.load import load_catalog
from mscli.paths import shipped_profiles
from mscli.planning.described_machine import machine
from mscli.planning.known import Known
from mscli.planning.make import choose
from mscli.planning.plan import GIB, Choice

TABLE = Path(__file__).with_name("decisions.csv")
COUNTS = (1, 2, 4, 8)
DESKTOP_BYTES = 3 * GIB // 2
COLUMNS = (
    "card", "cards", "use", "profile", "verdict", "context", "kv_type", "gpus", "tensor_parallel", "margin_gib",
    "decode_tok_s", "reason",
)  # fmt: skip
Row = tuple[str, ...]


def rows() -> Iterator[Row]:
    """One row per card, number of cards and use. Host RAM is the 64 GiB that a machine from names has."""
    facts = load_gpus(shipped_profiles())
    catalog = load_catalog(shipped_profiles(), Path("/nonexistent"))
    automatic = [profile for profile in catalog.profiles.values() if profile.automatic]
    pairs = [(profile, catalog.models[profile.model]) for profile in automatic]
    for card in facts:
        for count in COUNTS:
            for use, used in (("headless", 0), ("desktop", DESKTOP_BYTES)):
                where = machine(f"{count}x {card}", facts, used_bytes=used)
                yield (card, str(count), use, *_decision(choose(pairs, Known(where, (), facts))))


def _decision(choice: Choice) -> Row:
    plan = choice.chosen
    if plan is None:
        return ("none", "no", "", "", "", "", "", "", choice.reason)
    margin = min(gpu.margin_bytes - gpu.kv_spare_bytes for gpu in plan.memory) / GIB
    speed = f"{plan.speed.decode_tok_s[1]:.0f}" if plan.speed else "unknown"
    gpus = " ".join(map(str, plan.gpus))
    return (
        plan.profile, plan.verdict, str(plan.context), plan.kv_type, gpus, str(plan.tensor_parallel),
        f"{margin:.1f}", speed, "; ".join(plan.steps),
    )  # fmt: skip


def table() -> str:
    """The whole table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows())
    return text.getvalue()


def differences(new: str, old: str) -> list[str]:
    """The lines that are not in both, as a reader of the table wants them: "- before", "+ now"."""
    before, now = old.splitlines(), new.splitlines()
    gone = [f"- {line}" for line in before if line not in set(now)]
    come = [f"+ {line}" for line in now if line not in set(before)]
    return sorted(gone + come, key=lambda line: line[2:])


def main() -> int:
    """Show the differences, or write the table."""
    found = table()
    if "--write" in sys.argv[1:]:
        TABLE.write_text(found)
        return 0
    changed = differences(found, TABLE.read_text() if TABLE.exists() else "")
    print("\n".join(changed) or f"{TABLE.name} is up to date")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
