"""llama.cpp: its server run for its version and for the devices that it sees; the wheel's likewise, in a child."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mscli.doctor.checks.check import Finding, counted, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext, Ran
from mscli.doctor.checks.engines.installed import AREA, located
from mscli.engines.llamacpp.engine import OLDEST_BUILD, SYSTEM_CONFIG, listed_devices, system_settings
from mscli.engines.llamacpp.installation import NAME, PROGRAM
from mscli.frozen import frozen

INSTALL = f"mscli engines install {NAME}"
# With CUDA it starts every GPU before it answers, which takes seconds where the driver was asleep.
_QUICK_S, _THOROUGH_S = 1.1, 20.0
_BUILD = re.compile(r"build (\d+)|version: (\d+) \(")
_WHEEL_DEVICES = (
    "import xllamacpp\n"
    "for each in xllamacpp.get_device_info():\n"
    "    if 'GPU' in str(each['type']):\n"
    "        print(f\"  {each['name']}: {each['description']} ({each['memory_total'] >> 20} MiB)\")\n"
    "print('Available devices:')\n"
)


@frozen
class Server:
    """One llama-server. `devices`: the GPUs that it sees, None where it did not tell. `said`: all that it said.

    `broken`: it does not run. `late`: it gave no answer in the time that it was given.
    """

    path: Path
    kind: str
    version: str | None
    devices: tuple[str, ...] | None
    said: str
    broken: bool = False
    late: bool = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        what = "the wheel xllamacpp" if self.kind == "wheel" else PROGRAM
        return f"{what} {self.version or '(version unknown)'} in {self.path}"


def server(ctx: CheckContext) -> Server | None:
    """The one that mscli would start; None where there is none."""
    return ctx.once("llama-server", lambda: _server(ctx))


def llamacpp(ctx: CheckContext) -> Iterator[Finding]:
    """Whether it runs, is new enough, and sees the GPUs."""
    found = server(ctx)
    if found is None:
        if ctx.wants(NAME):
            yield fail("engine_missing", "llama.cpp not installed", "Install it, without root:", command=INSTALL)
        else:
            yield skipped("llama.cpp not installed")
        return
    if found.late:
        yield _late(ctx, found)
        return
    if found.broken:
        code, remedy = ctx.cause(found.said, NAME, "engine_missing")
        seen = f"{found.words} does not run"
        yield fail(code, seen, f"{remedy} Or remove it from PATH.", *_last(found.said))
        return
    build = _BUILD.search(f"version: {found.version}")
    if found.kind != "wheel" and build and (number := int(build[1] or build[2])) < OLDEST_BUILD:
        seen = f"{found.words} is too old (build {number}, needs {OLDEST_BUILD})"
        yield fail("version_backend_old", seen, "Install a newer build:", command=INSTALL)
        return
    yield _devices(ctx, found)
    file = ctx.root / str(SYSTEM_CONFIG).lstrip("/")
    if found.kind != "wheel" and (keys := system_settings(file)):
        yield warn(
            "cli_flags",
            f"{file} sets {', '.join(keys)} for every program of llama.cpp",
            "Remove what should not apply to mscli's instances; the plan's flags override the rest.",
        )


def _late(ctx: CheckContext, found: Server) -> Finding:
    if not _thorough(ctx):
        return skipped(f"{found.words} did not answer in time (`mscli doctor --only engines` waits longer)")
    seen = f"{found.words} did not answer within {_THOROUGH_S:g} s"
    return fail(
        "engine_missing",
        seen,
        "Run it by hand to see why, or remove it from PATH to use another.",
        *_last(found.said),
    )


def _thorough(ctx: CheckContext) -> bool:
    return AREA in ctx.asked or ctx.wants(NAME)


def _devices(ctx: CheckContext, found: Server) -> Finding:
    on_cpu = ctx.chosen is not None and ctx.chosen.profile.device == "cpu"
    if not ctx.inventory.devices or on_cpu:
        return ok(f"{found.words} runs")
    if found.devices is None:
        return warn(None, f"{found.words} has no --list-devices (GPU support unknown)", "Install a newer build.")
    if found.devices:
        return ok(f"{found.words} sees {counted(len(found.devices), 'GPU')}", *found.devices[:4])
    code, remedy = ctx.cause(found.said, NAME, "backend_no_gpu_build")
    if code == "backend_no_gpu_build":
        remedy = (
            "Put a CUDA build on PATH (https://github.com/ggml-org/llama.cpp), or install the official build for this "
            "GPU:"
        )
    # The wheel is made for CPUs and comes along with mscli: no fault, unless it is all that a profile has.
    severity = warn if found.kind == "wheel" and not ctx.wants(NAME) else fail
    seen = f"{found.words} sees none of {counted(len(ctx.inventory.gpus), 'GPU')} (would run on the CPU)"
    return severity(code, seen, remedy, *_last(found.said), command=INSTALL)


def _server(ctx: CheckContext) -> Server | None:
    own = ctx.places.engines / NAME / PROGRAM
    first = ctx.which(PROGRAM)
    if first or own.is_file():
        return _program(ctx, Path(first) if first else own, "program" if first else "own")
    found = located(ctx, NAME)
    if found.place is None or found.place.kind != "wheel":
        return None
    told = ctx.run(found.place.argv[0], "-c", _WHEEL_DEVICES, timeout_s=_timeout_s(ctx))
    words = told.err if told else ""
    late, broken = told is not None and told.status is None, told is None or bool(told.status)
    return Server(found.place.path, "wheel", found.version, _listed(told) if told else None, words, broken, late)


def _program(ctx: CheckContext, path: Path, kind: str) -> Server:
    timeout_s = _timeout_s(ctx)
    told = ctx.run(str(path), "--version", timeout_s=timeout_s)
    if told is None or told.status:
        return Server(path, kind, None, None, f"{told.err}\n{told.out}" if told else "cannot be executed", True)
    said = f"{told.err}\n{told.out}"
    version = next((line.removeprefix("version: ") for line in said.splitlines() if line.startswith("version: ")), None)
    listed = ctx.run(str(path), "--list-devices", timeout_s=timeout_s) if told.status == 0 else None
    late = told.status is None or (listed is not None and listed.status is None)
    words = f"{said}\n{listed.err}\n{listed.out}" if listed else said
    return Server(path, kind, version, _listed(listed) if listed else None, words, late=late)


def _timeout_s(ctx: CheckContext) -> float:
    return _THOROUGH_S if _thorough(ctx) else _QUICK_S


def _listed(told: Ran) -> tuple[str, ...] | None:
    """The GPUs among the devices; None where the program does not know the question."""
    found = listed_devices(told.out + told.err) if told.status == 0 else None
    return None if found is None else tuple(f"{name}: {what}" for name, what in found)


def _last(said: str) -> tuple[str, ...]:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return tuple(lines[-3:])
