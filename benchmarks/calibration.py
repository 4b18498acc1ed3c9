"""How sure the diagnosis may say it is: fitted on four fifths of the labelled failures and judged on the last one.

    python benchmarks/calibration.py CASES.jsonl           the reliability table
    python benchmarks/calibration.py CASES.jsonl --write   the same, and the fitted figures as data

A failure is judged without the wordings that only failures of its fifth taught, as a log that nobody has shown. What
was said of the 60 failures of fresh-2.jsonl at first sight, before anything was learnt from them, is fitted to as well.
"""

from __future__ import annotations

import json
import random
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from diagnosis import TESTS, Case, Knowledge, field, fresh, later, learnt_from, more_cases

FIFTHS, SHUFFLES = 5, 5
FIRST_SIGHT = TESTS / "diagnosis" / "first-sight.json"  # [how sure, whether rightly] of each that was not unknown
DATA = Path(__file__).parents[1] / "mscli" / "diagnosis" / "signatures" / "calibration.yaml"
BINS = (0.0, 0.3, 0.5, 0.7, 0.85, 0.95, 1.01)
PRIOR = 4.0  # failures' worth of trust in what the signatures themselves say
Judged = tuple[float, bool]  # how sure, and whether rightly
Curve = list[tuple[float, float]]  # what the signatures say, and how often that is right


def every_case(path: Path) -> list[Case]:
    rows = [*map(json.loads, path.read_text().splitlines())]
    cases = [Case(row["id"], row["category"], row["log"], row["backend"]) for row in rows]
    return [
        *cases,
        *more_cases(),
        *(case for half in ("learn", "judge", "last") for case in fresh(half)),
        *later("fresh-2"),
        *field(),
    ]


def held_out(cases: Sequence[Case]) -> Iterator[list[list[Judged]]]:
    """For each shuffle the first causes of each fifth, judged without what only that fifth taught."""
    learnt = learnt_from(cases)
    for seed in range(SHUFFLES):
        order = list(cases)
        random.Random(seed).shuffle(order)
        fifths = [order[start::FIFTHS] for start in range(FIFTHS)]
        yield [list(judged(fifth, {case.id for case in fifth}, learnt)) for fifth in fifths]


def judged(cases: Sequence[Case], ids: set[str], learnt: dict[object, set[str]]) -> Iterator[Judged]:
    knowledge = Knowledge(frozenset(item for item, helped in learnt.items() if helped <= ids))
    for case in cases:
        if found := knowledge.diagnose(case):
            yield found[0].confidence, found[0].code == case.code


def fit(pairs: Sequence[Judged]) -> Curve:
    """How often a confidence is right, rising with it: neighbors that would fall are taken together, and each has the
    weight of PRIOR failures that are right as often as said."""
    blocks: list[list[float]] = []  # said, right, weight
    for low, high in pairwise(BINS):
        inside = [(said, right) for said, right in pairs if low <= said < high]
        if not inside:
            continue
        said = sum(value for value, _ in inside) / len(inside)
        weight = len(inside) + PRIOR
        blocks.append([said, (sum(right for _, right in inside) + PRIOR * said) / weight, weight])
        while len(blocks) > 1 and blocks[-2][1] > blocks[-1][1]:
            said, right, weight = blocks.pop()
            before = blocks[-1]
            total = before[2] + weight
            blocks[-1] = [
                (before[0] * before[2] + said * weight) / total,
                (before[1] * before[2] + right * weight) / total,
                total,
            ]
    return [(0.0, 0.0), *((round(said, 2), round(right, 2)) for said, right, _ in blocks), (1.0, 1.0)]


def fitted(curve: Curve, said: float) -> float:
    at = min(bisect_right([x for x, _ in curve], said), len(curve) - 1)
    (x0, y0), (x1, y1) = curve[at - 1], curve[at]
    return y0 + (y1 - y0) * (said - x0) / (x1 - x0) if x1 > x0 else y1


def table(pairs: Sequence[Judged]) -> Iterator[str]:
    yield "| said | logs | mean | right |"
    yield "| --- | --- | --- | --- |"
    for low, high in pairwise(BINS):
        inside = [(said, right) for said, right in pairs if low <= said < high]
        if inside:
            mean, right = (sum(values) / len(inside) for values in zip(*inside, strict=True))
            yield f"| {low:.2f} to {min(high, 1):.2f} | {len(inside)} | {mean:.2f} | {right:.2f} |"
    gaps = [abs(said - right) for said, right in pairs]
    yield ""
    yield f"Brier score {sum(gap**2 for gap in gaps) / len(gaps):.3f}."


def main(path: Path, write: bool) -> None:
    cases = every_case(path)
    shuffles = list(held_out(cases))
    raw = [pair for fifths in shuffles for fifth in fifths for pair in fifth]
    first_sight: list[Judged] = [(said, right) for said, right in json.loads(FIRST_SIGHT.read_text())]
    checked: list[Judged] = []
    for fifths in shuffles:
        for number, fifth in enumerate(fifths):
            others = [pair for other, pairs in enumerate(fifths) if other != number for pair in pairs]
            curve = fit([*others, *first_sight * (SHUFFLES - 1)])
            checked += [(fitted(curve, said), right) for said, right in fifth]
    print("# How sure\n\nMade by `python benchmarks/calibration.py CASES.jsonl`.\n")
    print(f"{len(cases)} labelled failures, each judged without the wordings that only its fifth taught, in {SHUFFLES}")
    print("shuffles. As the signatures say:\n")
    print("\n".join(table(raw)))
    print("\nAs fitted on four fifths and judged on the fifth:\n")
    print("\n".join(table(checked)))
    print("\nAt first sight, as the signatures said:\n")
    print("\n".join(table(first_sight)))
    curve = fit([*raw, *first_sight * SHUFFLES])
    print("\nFitted on all:", ", ".join(f"{said:.2f} is {right:.2f}" for said, right in curve))
    if write:
        head = "# How often a confidence of the signatures is right: made by benchmarks/calibration.py, do not edit.\n"
        DATA.write_text(head + "".join(f"- [{said}, {right}]\n" for said, right in curve))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--write" in sys.argv)
