"""Which engines are here, each looked for once, as the engine itself looks for its copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mscli.doctor.checks.check import Seen, fail, skipped
from mscli.doctor.checks.context import CheckContext
from mscli.engines.engine import Installation
from mscli.engines.table import engine
from mscli.errors import MscliError

AREA = "engines"


@dataclass(frozen=True)
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

    def absent(self, ctx: CheckContext) -> Seen:
        """What it means that it is not here: nothing, unless it was named or is wanted."""
        assert self.fault is not None
        named = bool(self.fault.details) and "path" in (self.fault.details or {})
        if named or wanted(ctx, self.engine):
            return fail("engine_missing", self.fault.message, self.fault.hint, command=None if named else self.install)
        return skipped(f"{self.engine} is not here")


def located(ctx: CheckContext, name: str) -> Found:
    """The copy of an engine that mscli would start."""
    return ctx.once(f"engine {name}", lambda: _located(name))


def wanted(ctx: CheckContext, name: str) -> bool:
    """Whether the profile asked about runs on this engine."""
    return ctx.chosen is not None and ctx.chosen.profile.engine == name


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
