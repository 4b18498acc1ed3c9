"""What a check is and what it finds; and what all checks share: the machine as it was seen once, where they may look,
and how they run programs and wait.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mscli.diagnosis.causes import CAUSES, Cause
from mscli.frozen import field, frozen
from mscli.inventory.detect import GONE, detect
from mscli.inventory.health import Health, read_health
from mscli.inventory.inventory import Gpu, Inventory
from mscli.paths import Places, hub_cache, on_path
from mscli.untrusted import clean

if TYPE_CHECKING:
    from mscli.catalog.load import Catalog
    from mscli.instances.records import Record
    from mscli.lifecycle.decision import Chosen


T = TypeVar("T")


_LIKELY = 0.5
"""NVML's words for a GPU that no longer answers."""


@frozen
class Ran:
    """How a program ended. `status` None: it had not ended at the deadline and was killed."""

    status: int | None
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line that it wrote, of its errors first."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else ""


@frozen
class CheckContext:
    """One visit of the doctor. `root` stands for / wherever a check reads files of the kernel or the system; programs
    are found on `env`'s PATH. `chosen`: the profile asked about, None for the machine alone. `asked`: the areas that
    were named one by one.

    What several checks need is looked at once, by whichever comes first, and the others wait for it.
    """

    places: Places
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    chosen: Chosen | None = None
    asked: frozenset[str] = frozenset()
    _known: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)
    _locks: dict[tuple[str, str], threading.Lock] = field(default_factory=dict, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def thorough(self, area: str) -> bool:
        """Whether checks of `area` may take their time: named on the command line, or a profile was."""
        return self.chosen is not None or area in self.asked

    def once(self, what: str, look: Callable[[], T], of: str | None = None) -> T:
        """What `look` returns, called the first time that its module asks for `what`.

        A word means the same within one module only, so that none is given what another one has found. `of`: the module
        for which this answers, where it is not that of `look`.
        """
        key = (of or look.__module__, what)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._known:
                self._known[key] = look()
            known: T = self._known[key]
            return known

    @property
    def inventory(self) -> Inventory:
        """GPUs through NVML, and the host."""
        return self.once("inventory", lambda: detect(hub_cache(self.env), self.env, self.root))

    @property
    def catalog(self) -> Catalog:
        """Every profile and model that loads. Raises MscliError where a folder or the pins cannot be read."""
        from mscli.lifecycle.pinned import catalogue

        return self.once("catalog", lambda: catalogue(self.places))

    @property
    def records(self) -> tuple[Record, ...]:
        """Our own instances that can be read."""
        from mscli.instances.records import Records

        return self.once("records", lambda: Records(self.places).all()[0])

    @property
    def health(self) -> tuple[Health, ...]:
        """Of the GPUs that NVML shows, read after the inventory and not beside it; none where NVML does not answer."""
        indices = [gpu.index for gpu in self.inventory.gpus]
        return self.once("health", lambda: read_health(indices) if indices else ())

    @property
    def lost_gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that no longer answer."""
        return tuple(gpu for gpu in self.inventory.gpus if GONE & {problem.code for problem in gpu.problems})

    def wants(self, engine: str) -> bool:
        """Whether the profile asked about runs on this engine."""
        return self.chosen is not None and self.chosen.profile.engine == engine

    def causes(self, text: str, engine: str | None) -> list[Cause]:
        """What a log or a message shows, as far as it is more likely than not, the likeliest first."""
        from mscli.diagnosis.causes import facts_of
        from mscli.diagnosis.diagnose import diagnose

        found = diagnose(text, engine, facts_of(self.inventory)) if text.strip() else ()
        return [cause for cause in found if cause.confidence >= _LIKELY]

    def cause(self, text: str, engine: str | None, otherwise: str) -> tuple[str, str]:
        """The code of the likeliest cause that a text shows, and its remedy; else those of `otherwise`."""
        if found := self.causes(text, engine):
            return found[0].code, found[0].remedy
        return otherwise, CAUSES[otherwise][1]

    def which(self, name: str) -> str | None:
        """The path of a program as this user would run it; None where there is none."""
        return on_path(name, path=self.env.get("PATH"))

    def run(self, *argv: str, timeout_s: float = 2.0, env: Mapping[str, str] | None = None) -> Ran | None:
        """Run a program without input and wait at most `timeout_s` for its end; None where it is not there or cannot be
        executed.

        `env` is added to this context's. What it writes is read as text, whatever it is.
        """
        program = self.which(argv[0])
        if program is None:
            return None
        try:
            process = subprocess.Popen(
                [program, *argv[1:]], env={**self.env, **(env or {})}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError:
            return None
        return _end(process, timeout_s)


def _end(process: subprocess.Popen[bytes], timeout_s: float) -> Ran:
    """Its end, or what it had written by then. One that hangs in the kernel does not even die of SIGKILL, as programs
    do that wait for a GPU which has fallen off the bus: it is not waited for.
    """
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as late:
        process.kill()
        return Ran(None, _text(late.stdout), _text(late.stderr))
    return Ran(process.returncode, _text(out), _text(err))


def _text(raw: str | bytes | None) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw or ""


def tail(path: Path, size_bytes: int, start: int = 0) -> str:
    """The last `size_bytes` of a file, or what comes after its byte `start`; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start if start <= end else 0, end - size_bytes))  # it may have been truncated meanwhile
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def user_name(uid: int) -> str | None:
    """The name of a user; None for one without an entry, as in many containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises; TimeoutError when that takes longer. The call is then left to itself, in a thread
    that ends with the program."""
    results: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as fault:  # handed to the caller's thread, which judges it
            faults.append(fault)

    worker = threading.Thread(target=run, name="within", daemon=True)
    worker.start()
    worker.join(max(seconds, 0.0))
    if faults:
        raise faults[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.1f} s")
    return results[0]


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


def plain(text: str) -> str:
    """`text` without what a terminal would obey rather than show; line ends and tabs stay."""
    return clean(text.replace("\r\n", "\n"))


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
    its time (see CheckContext.thorough): on a busy machine also a quick look takes longer than a visit of all areas may
    wait for. `needs`: why it cannot look, None if it can.
    """

    id: str
    run: Callable[[CheckContext], Iterator[Finding]]
    deadline_s: float = 2.5
    thorough_s: float = 10.0
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
        return self.thorough_s if ctx.thorough(self.area) else self.deadline_s


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
