"""`mscli doctor --report`: all that a helper would ask for, as one Markdown text without anything private."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from mscli import __version__
from mscli.doctor.checks.check import CRASHED, FAIL, OK, WARN, Finding, plain
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.report.private import private_here, telling
from mscli.doctor.report.redact import redacted
from mscli.doctor.report.runs import Subject, fenced, instances, log, plans, size, table
from mscli.engines.table import engine_states
from mscli.inventory.inventory import Gpu, Holder, Inventory

TITLE = "# mscli doctor report"
_PACKAGES = ("huggingface-hub", "httpx", "ollama", "nvidia-ml-py", "typer", "xllamacpp")
_FAULT_LINES = 40
_TROUBLE = (FAIL, WARN, CRASHED)


def report(ctx: CheckContext, findings: Sequence[Finding], subject: Subject) -> str:
    """The whole report. Reads files, asks engines for their versions and instances for their state (2 s each at most).

    `subject`: the profile and log that it is about. Everything in it has passed `redacted`.
    """
    sections = (
        _head(),
        ("## Machine", *_machine(ctx.inventory), *_gpus(ctx.inventory)),
        ("## Engines", *_engines()),
        ("## Findings", *_findings(findings)),
        ("## Plan", *plans(ctx, subject)),
        ("## Instances", *instances(ctx)),
        ("## Environment", *fenced(telling(ctx.env) or ["no relevant variables set"])),
        ("## Log", *log(ctx, subject)),
        *_own_fault(ctx),
    )
    text = "\n\n".join("\n".join(section) for section in sections) + "\n"
    return redacted(plain(text), private_here(ctx.places, ctx.env, ctx.root, tuple(_settings(ctx))))


def _settings(ctx: CheckContext) -> Iterator[tuple[str, str]]:
    """What records and the profile asked about set: a secret in it can stand in a log as well."""
    for record in ctx.records:
        yield from record.env.items()
    if ctx.chosen:
        yield from ctx.chosen.profile.env.items()
        yield from ((name, str(value)) for name, value in ctx.chosen.profile.options.items())


def _own_fault(ctx: CheckContext) -> Iterator[tuple[str, ...]]:
    """The last fault of mscli's own, where there was one."""
    path = ctx.places.state / "last-fault.txt"
    try:
        lines = path.read_text(errors="replace").splitlines()[-_FAULT_LINES:]
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(path.stat().st_mtime))
    except OSError:
        return
    yield (f"## Last internal error of mscli, {when}", *fenced(lines))


def _head() -> tuple[str, ...]:
    return (
        TITLE,
        "",
        "mscli removed secrets, names, addresses and prompts. Read it before you share it.",
        "",
        f"- created: {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}",
        f"- mscli {__version__}, Python {platform.python_version()} ({platform.python_implementation()})",
        f"- packages: {', '.join(_packages())}",
    )


def _packages() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} not installed"


def _machine(seen: Inventory) -> Iterator[str]:
    host = seen.host
    where = f"{host.surroundings} ({host.container})" if host.container else host.surroundings
    library = " ".join(platform.libc_ver())
    yield f"- system: {_system()}, kernel {host.kernel}, {platform.machine()}, C library {library}"
    yield f"- environment: {where}; {host.cpu_model}, {host.cpu_cores} cores"
    yield f"- RAM: {size(host.ram_available_bytes)} of {size(host.ram_total_bytes)} available"
    yield f"- disk for weights: {size(host.disk_free_bytes)} free at {host.disk_path}"
    yield f"- NVIDIA driver {seen.driver or 'unknown'}, CUDA {seen.cuda or 'unknown'}"
    if seen.nvml is not None:
        yield f"- NVML: {seen.nvml.code}: {seen.nvml.message}"
    yield from (f"- {problem.field}: {problem.message}" for problem in seen.problems)


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _gpus(seen: Inventory) -> Iterator[str]:
    if not seen.gpus:
        return
    yield ""
    columns = ("GPU", "name", "compute capability", "memory", "used", "free", "temperature", "MIG", "visible", "UUID")
    yield from table(columns, [_gpu(gpu) for gpu in seen.gpus])
    for gpu in seen.gpus:
        yield from (f"- GPU {gpu.index} used by {_holder(each)}" for each in gpu.holders)
        yield from (f"- GPU {gpu.index}, {problem.field}: {problem.message}" for problem in gpu.problems)
    for link in seen.links:
        way = f"{link.nvlinks} NVLinks" if link.nvlinks else f"PCIe, {link.path}"
        p2p = {True: "yes", False: "no", None: "unknown"}[link.p2p]
        yield f"- GPU {link.first} to GPU {link.second}: {way}, peer-to-peer: {p2p}"


def _gpu(gpu: Gpu) -> tuple[str, ...]:
    return (
        str(gpu.index),
        gpu.name,
        gpu.compute_capability or "unknown",
        size(gpu.memory_total_bytes),
        size(gpu.memory_used_bytes),
        size(gpu.memory_free_bytes),
        "unknown" if gpu.temperature_c is None else f"{gpu.temperature_c} C",
        gpu.mig.mode,
        "yes" if gpu.visible else "no",
        gpu.uuid or "unknown",
    )


def _holder(holder: Holder) -> str:
    where = " in a container" if holder.container else ""
    return f"PID {holder.pid}{where} ({holder.command or 'unknown command'}): {size(holder.used_bytes)}"


def _engines() -> Iterator[str]:
    rows = [
        (each.name, each.version or "unknown" if each.where else "-", each.kind or "-", each.where or each.note or "-")
        for each in engine_states()
    ]
    return table(("engine", "version", "kind", "path or reason"), rows)


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    """What is wrong first, with its evidence; then a line for everything else."""
    order = {status: place for place, status in enumerate(_TROUBLE)}
    trouble = sorted((each for each in findings if each.status in order), key=lambda each: order[each.status])
    for finding in trouble:
        code = f" ({finding.code})" if finding.code else ""
        yield f"### {finding.status}: {finding.id}{code}"
        yield ""
        yield finding.seen
        if finding.evidence:
            yield from fenced(finding.evidence)
        if finding.remedy:
            yield f"Remedy: {finding.remedy}"
        if finding.command:
            yield from fenced((f"$ {finding.command}",))
        yield ""
    if not trouble:
        yield "No problems found."
        yield ""
    rest = sorted((each for each in findings if each.status not in _TROUBLE), key=lambda each: each.status != OK)
    yield from table(
        ("check", "status", "finding"),
        [(each.id, each.status, each.seen) for each in rest],
    )
