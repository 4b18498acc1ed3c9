"""Every screen as it was read through, compared whole; and what holds for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from support.phrases import phrases_in
from support.screens import take

# Longer than one screen: what was asked for in full, and commands that can be copied.
LONG = re.compile(r"--all|--on (?:all|list)|--dry-run|plan small-|profiles show|^help|--help|doctor")
# Text of others, which is shown as it is: logs, files, variables, and commands to copy.
AS_IT_IS = re.compile(r": logs|: launch$|: env|--print|profiles show|--dry-run|plan small-")


@pytest.mark.parametrize("place", take.PLACES)
def test_the_screens_are_those_that_were_read(place: str) -> None:
    taken = take.taken_on(place)
    kept = {path.name: path.read_text() for path in (take.TAKEN / place).glob("*.txt")}
    fresh = {take.file_of(place, command).name: text for command, text in taken.items()}
    changed = sorted(name for name in {*kept, *fresh} if kept.get(name) != fresh.get(name))
    assert changed == [], "`PYTHONPATH=tests python -m support.screens.take`, then read: git diff tests/screens/taken"


def all_kept() -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Each command on each machine, with its lines by width."""
    for path in sorted(take.TAKEN.rglob("*.txt")):
        head, *parts = path.read_text().split("===== ")
        screens = {part.partition("\n")[0]: part.partition("\n")[2].splitlines() for part in parts}
        yield f"{path.parent.name}: {head.strip().removeprefix('$ mscli ')}", screens


SCREENS = list(all_kept())


@pytest.mark.parametrize(("name", "screens"), SCREENS, ids=[name for name, _ in SCREENS])
def test_a_screen_fits_its_terminal(name: str, screens: dict[str, list[str]]) -> None:
    if not LONG.search(name):
        assert len(screens["80x24"]) <= 24, "longer than 24 lines at 80x24"
    for width in () if AS_IT_IS.search(name) else (80, 120, 40):
        lines = next(lines for shown, lines in screens.items() if shown.startswith(str(width)))
        # A word that is longer than the line stays whole: a path, a URL, a quoted line of a log.
        wide = [line for line in lines if len(line) > width and len(line.split()) > 2 and " | " not in line]
        assert [line for line in wide if longest(line) < width // 2] == []


def longest(line: str) -> int:
    return max(map(len, line.split()))


VERDICTS = [(name, screens) for name, screens in SCREENS if re.search(r": (?:plan|profiles)( --all)?$", name)]


@pytest.mark.parametrize(("name", "screens"), VERDICTS, ids=[name for name, _ in VERDICTS])
def test_no_reason_beside_a_verdict_is_cut(name: str, screens: dict[str, list[str]]) -> None:
    """Why a profile does not run is one short clause that fits its column."""
    reasons = [line for line in screens["80x24"] if re.match(r"\S+ +(?:too big|unsupported|needs )", line)]
    assert [line for line in reasons if "…" in line] == []


@pytest.mark.parametrize(("name", "screens"), SCREENS, ids=[name for name, _ in SCREENS])
def test_no_word_and_no_url_is_broken(name: str, screens: dict[str, list[str]]) -> None:
    """Each word of a narrow screen is one of the piped screen, whose lines are not wrapped."""
    whole = " ".join(" ".join(screens["120x40" if "--watch" in name else "piped"]).split())
    for lines in screens.values():
        for word in re.findall(r"https?://\S+|/tmp/\S+", " ".join(lines)):
            assert word.strip("().,;\\") in whole, f"{word} is broken"


@pytest.mark.parametrize(("name", "screens"), SCREENS, ids=[name for name, _ in SCREENS])
def test_a_screen_speaks_plainly(name: str, screens: dict[str, list[str]]) -> None:
    assert list(phrases_in("\n".join(screens["piped"]))) == []


@pytest.mark.parametrize("machine", take.MACHINES)
@pytest.mark.parametrize("command", ["profiles", "profiles --all", "plan --all"])
def test_a_row_names_its_engine_once(machine: str, command: str) -> None:
    rows = [line for line in take.file_of(machine, command).read_text().splitlines() if line.count("  ") > 2]
    named = [re.findall(r"ollama|vllm|llama\.cpp|transformers|mistral\.rs", row.lower()) for row in rows]

    assert any(named)
    assert [row for row, engines in zip(rows, named, strict=True) if len(engines) > 1] == []
