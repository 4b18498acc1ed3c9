"""The engines that are here, each looked for once, and their Python environments.

An environment is asked by a child process of its own Python (inside.py): what is in it, and whether it imports.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mscli.doctor.checks.check import CheckContext, Finding, Ran, fail, skipped
from mscli.engines.engine import Installation
from mscli.engines.table import engine
from mscli.errors import MscliError
from mscli.frozen import frozen

AREA = "engines"


@frozen
class Found:
    """An engine's copy. `place` None: there is none, and `fault` is why. `python`: the interpreter that runs it."""

    engine: str
    place: Installation | None
    python: Path | None = None
    fault: MscliError | None = None

    @property
    def version(self) -> str | None:
        """Its version, None if it is not here or does not tell."""
        return self.place.version if self.place else None

    @property
    def words(self) -> str:
        """What it is and where, for people."""
        where = self.place.path if self.place else "nowhere"
        return f"{self.engine} {self.version or '(version unknown)'} in {where}"

    @property
    def install(self) -> str:
        """How to get one."""
        return f"mscli engines install {self.engine}"

    def absent(self, ctx: CheckContext) -> Finding:
        """What it means that it is not here: nothing, unless it was named or is wanted."""
        assert self.fault is not None
        named = bool(self.fault.details) and "path" in (self.fault.details or {})
        if named or ctx.wants(self.engine):
            return fail("engine_missing", self.fault.message, self.fault.hint, command=None if named else self.install)
        return skipped(f"{self.engine} not installed")


def located(ctx: CheckContext, name: str) -> Found:
    """The copy of an engine that mscli would start."""
    return ctx.once(f"engine {name}", lambda: _located(name))


def _located(name: str) -> Found:
    try:
        place = engine(name).locate()
    except MscliError as fault:
        return Found(name, None, fault=fault)
    return Found(name, place, _python(name, place))


def _python(name: str, place: Installation) -> Path | None:
    if name == "vllm":
        from mscli.engines.vllm.installation import environment_python

        return environment_python(place)
    # What runs in Python is started by it; a program is its own.
    first = Path(place.argv[0])
    return first if first.name.startswith("python") else None


_PROGRAM = Path(__file__).with_name("inside.py")
QUICK_S = 2.0


@frozen
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
        return f"{self.name} {self.found or 'missing'}, {self.by} needs {self.name}{self.wants}"


@frozen
class Imported:
    """One import in the child. `error`: its traceback, None where it went well. `late`: it was not over in time, and
    nothing more is known. `told`: what the module said of itself (see inside.py)."""

    name: str
    error: str | None
    told: Any = None
    late: bool = False


@frozen
class NoAnswer:
    """Why a Python told nothing. `late`: it may have been about to."""

    words: str
    late: bool = False


@frozen
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
) -> Environment | NoAnswer:
    """What is in the environment of `python`, or why that Python does not tell. Waits at most `timeout_s`.

    `owners`: the distributions whose requirements are held against what is installed.
    """
    asked = json.dumps({"packages": list(packages), "owners": list(owners), "imports": list(imports)})
    told = ctx.run(str(python), "-c", _PROGRAM.read_text(), asked, timeout_s=timeout_s)
    if told is None:
        return NoAnswer(f"cannot run {python}")
    lines = list(_objects(told.out))
    if not lines or "facts" not in lines[0]:
        return NoAnswer(told.last_words or _ending(told, timeout_s), told.status is None)
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
        return f"did not end within {timeout_s:g} s"
    return f"killed by signal {-told.status}" if told.status < 0 else f"exit status {told.status}"


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
