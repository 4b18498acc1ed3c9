"""Checks of the engines: each located as a start would, run or imported, and held against this machine.

And the variables of this shell that change what an engine does, mostly left over from something else.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mscli.doctor.checks import ollama_server
from mscli.doctor.checks.check import Check, CheckContext, Finding, Ran, counted, fail, ok, skipped, warn
from mscli.doctor.checks.containers.engine import container_engine
from mscli.doctor.checks.engines.installed import AREA, Environment, located
from mscli.doctor.checks.engines.python import TRANSFORMERS, VLLM, Kind, environment, judged
from mscli.engines.llamacpp.engine import OLDEST_BUILD, SYSTEM_CONFIG, listed_devices, system_settings
from mscli.engines.llamacpp.installation import NAME, PROGRAM
from mscli.engines.mistralrs.installation import NAME as MISTRALRS
from mscli.engines.mistralrs.installation import WHEEL
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


# The distribution of mistral.rs that has GPU code.
_WITH_CUDA = "mistralrs-cuda"
_PROGRAMS = {"llama-server": "llama.cpp/llama-server", "ollama": "ollama/bin/ollama", "vllm": "vllm/bin/vllm"}


def _mistralrs(ctx: CheckContext) -> Iterator[Finding]:
    found = located(ctx, MISTRALRS)
    if found.place is None:
        yield found.absent(ctx)
        return
    if found.place.kind == WHEEL and ctx.inventory.gpus and _WITH_CUDA not in found.place.beside:
        severity = fail if ctx.wants(MISTRALRS) else warn
        yield severity(
            "backend_no_gpu_build",
            f"{found.words} is a CPU wheel, but this machine has GPUs",
            "Install the build with CUDA:",
            command="cargo install mistralrs-cli --features cuda",
        )
        return
    yield ok(found.words)


def _shadows(ctx: CheckContext) -> Iterator[Finding]:
    """Programs of one name: the first on PATH is used, before the one that mscli installed."""
    twins = False
    for name, own in _PROGRAMS.items():
        places = _on_path(ctx, name)
        installed = ctx.places.engines / own
        if installed.is_file() and places:
            twins = True
            yield warn(None, f"{places[0]} on PATH hides {installed}, which mscli installed", "Remove one of the two.")
        elif len(places) > 1:
            twins = True
            yield warn(
                None, f"{len(places)} programs named {name} on PATH; {places[0]} is used",
                "Put the one you want first.", *map(str, places),
            )  # fmt: skip
    if not twins:
        yield ok("no conflicting engine binaries on PATH")


def _on_path(ctx: CheckContext, name: str) -> list[Path]:
    """Every program of this name, those that are one file only once."""
    found: dict[Path, Path] = {}
    for folder in ctx.env.get("PATH", "").split(":"):
        path = Path(folder or ".", name)
        if path.is_file():
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _usable(ctx: CheckContext) -> Iterator[Finding]:
    """Whether anything here can run a model on this machine's GPUs, or else on its CPU."""
    gpus = bool(ctx.inventory.devices)
    here = [name for name, fits in _abilities(ctx, gpus) if fits]
    if here:
        yield ok(f"usable on this machine's {'GPUs' if gpus else 'CPU'}: {', '.join(here)}")
        return
    name = "ollama" if gpus else "llama.cpp"
    yield warn(
        "engine_missing",
        f"no engine for this machine's {'GPUs' if gpus else 'CPU'}",
        "Install one into mscli's folder, without root (others: mscli engines):",
        command=f"mscli engines install {name}",
    )


def _abilities(ctx: CheckContext, gpus: bool) -> Iterator[tuple[str, bool]]:
    """Every engine, and whether it is here and fits."""
    yield "ollama", ollama_server.ollama(ctx).server is not None or ollama_server.program(ctx) is not None
    ours = server(ctx)
    yield "llama.cpp", ours is not None and not ours.broken and (not gpus or bool(ours.devices))
    yield "vllm", _in_python(ctx, VLLM, gpus)
    yield "transformers", _in_python(ctx, TRANSFORMERS, gpus)
    docker = container_engine(ctx)
    yield "vllm-docker", gpus and docker is not None and bool("nvidia" in docker.engine.runtimes or docker.engine.cdi)
    rust = located(ctx, MISTRALRS).place
    yield MISTRALRS, rust is not None and (not gpus or rust.kind != WHEEL or _WITH_CUDA in rust.beside)


def _in_python(ctx: CheckContext, kind: Kind, gpus: bool) -> bool:
    found = located(ctx, kind.name)
    if found.place is None or found.python is None:
        return found.place is not None
    seen = environment(ctx, kind, found)
    return isinstance(seen, Environment) and (not gpus or seen.cuda is not None)


_OFF = frozenset({"", "0", "false", "no", "off"})
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)
_PASSWORD = re.compile(r"//[^/@\s]*@")


@frozen
class Override:
    """Variables by pattern, and what they do. `when`: values that matter (a pattern); `switch`: only when it is on."""

    name: str
    does: str
    code: str | None = None
    when: str = ""
    switch: bool = False


def overrides() -> tuple[Override, ...]:
    """The table of variables.csv. Of two that match a name the first one counts; one that does nothing is harmless."""
    with Path(__file__).with_name("variables.csv").open(newline="") as file:
        return tuple(
            Override(row["name"], row["does"], row["code"] or None, row["when"], row["switch"] == "yes")
            for row in csv.DictReader(file)
        )


def variables(ctx: CheckContext) -> Iterator[Finding]:
    """What is set in this shell, or by the profile, and what it does."""
    found, table = False, overrides()
    meant = ctx.chosen.profile.env if ctx.chosen else {}
    for name, value in sorted((name, value) for name, value in ctx.env.items() if name not in meant):
        override = next((each for each in table if re.fullmatch(each.name, name)), None)
        if override and override.does and _matters(override, value):
            found = True
            yield warn(
                override.code,
                f"{name}={_shown(name, value)}: {override.does}",
                "If not intended:",
                command=f"unset {name}",
            )
    if not found:
        yield ok("no environment overrides for engines")


def _matters(override: Override, value: str) -> bool:
    if override.switch:
        return value.lower() not in _OFF
    return not override.when or re.search(override.when, value) is not None


def _shown(name: str, value: str) -> str:
    return "..." if _SECRET.search(name) else _PASSWORD.sub("//***@", value)


CHECKS = (
    Check("engines.usable", _usable, thorough_s=100.0),
    Check("engines.llama.cpp", llamacpp, thorough_s=45.0),
    Check("engines.vllm", partial(judged, kind=VLLM), thorough_s=100.0),
    Check("engines.transformers", partial(judged, kind=TRANSFORMERS), thorough_s=100.0),
    Check("engines.mistral.rs", _mistralrs, thorough_s=15.0),
    Check("engines.programs", _shadows),
    Check("engines.variables", variables),
)
