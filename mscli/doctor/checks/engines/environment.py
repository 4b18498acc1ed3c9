"""An engine's Python environment, asked by a child process of its own Python: what is in it, and whether it imports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.program import Ran, run

_PROGRAM = Path(__file__).with_name("inside.py")
QUICK_S = 2.0


@dataclass(frozen=True)
class Unmet:
    """What `by` asks for and does not find. `found` None: it is not installed; `older`: it lies below what is asked."""

    by: str
    name: str
    wants: str
    found: str | None
    older: bool

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.name} is {self.found or 'missing'}, {self.by} wants {self.name}{self.wants}"


@dataclass(frozen=True)
class Imported:
    """One import in the child. `error`: its traceback, None where it went well. `late`: it was not over in time, and
    nothing more is known. `told`: what the module said of itself (see inside.py)."""

    name: str
    error: str | None
    told: Any = None
    late: bool = False


@dataclass(frozen=True)
class Silence:
    """Why a Python told nothing. `late`: it may have been about to."""

    words: str
    late: bool = False


@dataclass(frozen=True)
class Environment:
    """What the child told. `torch`: {version, cuda, hip} as PyTorch was built. `python_refused`: the engine's condition
    on Python's version, where it is not met. `unmet` None: no package there can read requirements."""

    python: str
    versions: Mapping[str, str]
    torch: Mapping[str, str | None] | None
    unmet: tuple[Unmet, ...] | None
    python_refused: str | None
    headers: bool
    compiler: str | None
    ninja: bool
    imports: tuple[Imported, ...] = ()

    @property
    def cuda(self) -> str | None:
        """The CUDA that PyTorch was built with; None for a build without, or without PyTorch."""
        return self.torch["cuda"] if self.torch else None


def ask(
    ctx: CheckContext,
    python: Path,
    packages: Sequence[str],
    owners: Sequence[str],
    imports: Sequence[str] = (),
    timeout_s: float = QUICK_S,
) -> Environment | Silence:
    """What is in the environment of `python`, or why that Python does not tell. Waits at most `timeout_s`.

    `owners`: the distributions whose requirements are held against what is installed.
    """
    asked = json.dumps({"packages": list(packages), "owners": list(owners), "imports": list(imports)})
    told = run(ctx, str(python), "-c", _PROGRAM.read_text(), asked, timeout_s=timeout_s)
    if told is None:
        return Silence(f"{python} cannot be executed")
    lines = list(_objects(told.out))
    if not lines or "facts" not in lines[0]:
        return Silence(told.last_words or _ending(told, timeout_s), told.status is None)
    facts = lines[0]["facts"]
    unmet = facts["unmet"]
    return Environment(
        facts["python"],
        facts["versions"],
        facts["torch"],
        None if unmet is None else tuple(Unmet(**each) for each in unmet),
        facts["python_refused"],
        facts["headers"],
        facts["compiler"],
        facts["ninja"],
        tuple(_imports(lines[1:], told, timeout_s)),
    )


def _imports(lines: Sequence[Mapping[str, Any]], told: Ran, timeout_s: float) -> Iterator[Imported]:
    """One by one; one that took the whole process with it has no line of its own."""
    ended = {each.get("imported") or each.get("failed"): each for each in lines if "importing" not in each}
    for name in [each["importing"] for each in lines if "importing" in each]:
        if name in ended:
            yield Imported(name, ended[name].get("error"), ended[name].get("told"))
        else:
            yield Imported(name, f"{told.err}\n{_ending(told, timeout_s)}".strip(), late=told.status is None)


def _ending(told: Ran, timeout_s: float) -> str:
    if told.status is None:
        return f"it was not over within {timeout_s:g} s"
    return f"it was killed by signal {-told.status}" if told.status < 0 else f"it ended with status {told.status}"


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The child's own lines; what libraries print is left out."""
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found
