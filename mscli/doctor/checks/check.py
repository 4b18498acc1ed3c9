"""What a check is and what it finds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from pathlib import Path

from mscli.diagnosis.causes import CAUSES
from mscli.doctor.checks.context import CheckContext
from mscli.frozen import frozen

OK, WARN, FAIL, SKIPPED, CRASHED = "ok", "warn", "fail", "skipped", "crashed"

AREAS = (
    *("host", "driver", "gpu", "cuda", "containers", "engines", "ollama"),
    *("weights", "network", "ports", "instances", "profile"),
)
"""In the order in which they are shown: what others build on comes first."""


@frozen
class Finding:
    """What one check found on this machine.

    `id`: of the check, `area.what`; it and the area are filled in by whoever runs the check. `code`: of the closed list
    of causes, None where nothing is wrong or no code fits. `seen`: what was found, one line. `evidence`: what shows it,
    as it was read (lines of a log, an answer, a path). `remedy`: what to do, in words; `command`: the same to type,
    where one command does it.
    """

    id: str = field(default="", kw_only=True)
    area: str = field(default="", kw_only=True)
    status: str
    seen: str
    code: str | None = None
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    command: str | None = None


# What a terminal would obey, in argv, names of GPUs and logs of others: escape sequences, other control characters, and
# marks that turn the direction of writing.
_SEQUENCE = re.compile(
    r"\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[PX^_][^\x1b\n]*(?:\x1b\\)?"
    r"|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def plain(text: str) -> str:
    """`text` without what a terminal would obey rather than show; line ends and tabs stay."""
    return _SEQUENCE.sub("", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`text` in one line: what others wrote cannot look like a finding of its own."""
    return " ".join(plain(text).split("\n")) if "\n" in text else plain(text)


Severity = Callable[..., Finding]
"""`warn` or `fail`: which of them, a check may leave to what depends on what it found."""


def nvml(ctx: CheckContext) -> str | None:
    """Why a check that needs NVML is skipped."""
    return "NVML does not answer (see driver.nvml)" if ctx.inventory.nvml is not None else None


def gpus(ctx: CheckContext) -> str | None:
    """Why a check that needs GPUs which NVML lists is skipped."""
    return nvml(ctx) or (None if ctx.inventory.gpus else "NVML lists no GPU (see driver.nvml)")


@frozen
class Check:
    """One thing that can be wrong with a machine, looked at by doing it rather than by searching for a file.

    `run` yields a finding for each thing it looks at (each GPU, each instance), and nothing where it does not apply
    (what a profile needs, when none was asked about). It runs beside others in a thread, must give a deadline to
    whatever it waits for, and is given up after `deadline_s` seconds: then, and when it raises, the check counts as
    crashed. It raises nothing for a fault of the machine. `thorough_s`: its deadline instead where its area may take
    its time (see CheckContext.thorough). `needs`: why it cannot look, None if it can.
    """

    id: str
    run: Callable[[CheckContext], Iterator[Finding]]
    deadline_s: float = 2.5
    thorough_s: float | None = None
    needs: Callable[[CheckContext], str | None] = lambda _: None

    def findings(self, ctx: CheckContext) -> Iterator[Finding]:
        """What it finds, or why it was skipped."""
        if why := self.needs(ctx):
            yield skipped(why)
        else:
            yield from self.run(ctx)

    @property
    def area(self) -> str:
        """The part of the id before its dot, one of AREAS."""
        return self.id.partition(".")[0]

    def timeout_s(self, ctx: CheckContext) -> float:
        """How long this visit waits for it."""
        return self.thorough_s if self.thorough_s and ctx.thorough(self.area) else self.deadline_s


def ok(seen: str, *evidence: str) -> Finding:
    """Nothing wrong."""
    return Finding(OK, seen, None, evidence)


def skipped(why: str) -> Finding:
    """Not looked at, and why: nothing is known then, which is not the same as nothing wrong."""
    return Finding(SKIPPED, why)


def warn(code: str | None, seen: str, remedy: str | None, *evidence: str, command: str | None = None) -> Finding:
    """Something that works now, or is not needed now, and may fail or mislead later. `remedy` None: the code's own."""
    return Finding(WARN, seen, code, evidence, _remedy(code, remedy), command)


def fail(code: str | None, seen: str, remedy: str | None, *evidence: str, command: str | None = None) -> Finding:
    """Something that keeps a model from running here. `remedy` None: the code's own."""
    return Finding(FAIL, seen, code, evidence, _remedy(code, remedy), command)


def _remedy(code: str | None, given: str | None) -> str:
    return given if given is not None else CAUSES[code][1] if code else ""


def counted(number: int, one: str, many: str = "") -> str:
    """`1 GPU`, `2 GPUs`; `many` where the plural has no plain s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def shell(path: Path | None) -> str:
    """A path as it is typed in a command: quoted where its name needs it."""
    return shlex.quote(str(path))


def together(texts: Iterable[tuple[int, str]], what: str = "GPU") -> str:
    """Several devices in one line: `GPU 0-7: 9.0` for what is the same of each, `GPU 0: 8.6; GPU 1: 8.9` else."""
    by_text: dict[str, list[int]] = {}
    for index, text in sorted(texts):
        by_text.setdefault(text, []).append(index)
    return "; ".join(f"{what} {_ranges(indices)}: {text}" for text, indices in by_text.items())


def _ranges(indices: list[int]) -> str:
    """0, 1, 2, 5 as `0-2, 5`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
