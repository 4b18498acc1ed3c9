"""`mscli doctor --report`: all that a helper would ask for, as one Markdown text without anything private."""

from __future__ import annotations

import platform
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mscli import __version__
from mscli.diagnosis.causes import Cause, facts_of
from mscli.diagnosis.diagnose import diagnose
from mscli.diagnosis.excerpt import telling
from mscli.diagnosis.log import read_log
from mscli.doctor.checks.check import CRASHED, FAIL, OK, WARN, CheckContext, Finding, plain
from mscli.doctor.report.redact import private_here, redacted
from mscli.doctor.report.redact_prompts import without_prompts
from mscli.doctor.report.redact_secrets import before_command, telling_variables
from mscli.engines.table import STARTABLE, engine_states
from mscli.errors import MscliError
from mscli.frozen import frozen
from mscli.instances.records import Records, running
from mscli.instances.state import CRASHED as ENDED
from mscli.instances.state import RUNNING, Instance, look
from mscli.instances.store import Unreadable
from mscli.inventory.inventory import Gpu, Holder, Inventory
from mscli.lifecycle.decision import plan_one
from mscli.lifecycle.preview import preview, somewhere
from mscli.lifecycle.snapshot import see
from mscli.planning.plan import GpuMemory, NoFit, Overrides, Plan

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
        ("## Environment", *fenced(telling_variables(ctx.env) or ["no relevant variables set"])),
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


_LINES = 60
_CAUSES = 3
# Of a log of many gigabytes, its end: prompts are looked for in all that is read.
_READ = 8 * 2**20


@frozen
class Subject:
    """What the report is about. `fault`: why the profile asked about cannot be used. `log`: a file to show; else
    `name`, of an instance; else the one that failed, or else the newest, is chosen."""

    fault: MscliError | None = None
    name: str | None = None
    log: Path | None = None


def plans(ctx: CheckContext, subject: Subject) -> Iterator[str]:
    """The plan of the profile asked about, and of every instance that runs."""
    if subject.fault:
        yield f"Cannot use the profile: {subject.fault.message}"
    if ctx.chosen:
        yield from _asked(ctx)
    live = [record for record in ctx.records if running(record)]
    for record in live:
        yield f"### {record.name} (running)"
        yield from _plan(record.plan, record.argv, record.env)
    if not (subject.fault or ctx.chosen or live):
        yield "No profile given, nothing running."


def _asked(ctx: CheckContext) -> Iterator[str]:
    assert ctx.chosen is not None
    profile, model = ctx.chosen.profile, ctx.chosen.model
    yield f"### {profile.name} (requested)"
    snapshot = see(ctx.places, ((profile.engine, profile.device),), gpus=profile.device == "gpu")
    outcome = plan_one(profile, model, snapshot, Overrides())
    if isinstance(outcome, NoFit):
        yield f"- too big: {'; '.join(outcome.reasons)}"
        yield f"- nearest that fits: {outcome.nearest or 'none'}"
        yield from _memory(outcome.memory)
        return
    command = None
    if profile.engine in STARTABLE:
        command = preview(outcome, profile, model, somewhere(profile, model, ctx.places)).command
    yield from _plan(outcome, command.argv if command else (), command.env if command else {})


def _plan(plan: Plan, argv: Sequence[str], env: Mapping[str, str]) -> Iterator[str]:
    yield f"- {plan.profile}: {plan.model}, {plan.variant}, on {plan.engine}; verdict {plan.verdict}"
    where = f"GPU {', '.join(map(str, plan.gpus))}" if plan.gpus else f"the CPU, {size(plan.host_bytes)} of host memory"
    yield f"- context {plan.context}, KV cache {plan.kv_type}, {plan.images} images, {plan.users} users, on {where}"
    yield f"- tensor parallel {plan.tensor_parallel}, layers on GPUs {plan.layers_on_gpu}"
    yield from (f"- {name}: {value}" for name, value in plan.settings.items())
    yield from (f"- {reason}" for reason in (*plan.steps, *plan.reasons))
    yield from _memory(plan.memory)
    if argv:
        yield ""
        yield from fenced((" ".join([*before_command(env), shlex.join(argv)]),))


def _memory(memory: Sequence[GpuMemory]) -> Iterator[str]:
    columns = ("GPU", "total", "free before", "weights", "projector", "KV", "compute", "graphs", "runtime", "left")
    rows = [
        (
            str(gpu.gpu), size(gpu.total_bytes), size(gpu.free_bytes), size(gpu.weights_bytes),
            size(gpu.projector_bytes), size(gpu.kv_bytes), size(gpu.compute_bytes), size(gpu.graphs_bytes),
            size(gpu.runtime_bytes), size(gpu.margin_bytes),
        )
        for gpu in memory
    ]  # fmt: skip
    if rows:
        yield ""
    yield from table(columns, rows)


def instances(ctx: CheckContext) -> Iterator[str]:
    """Every instance with its state, and the records that cannot be read."""
    records = Records(ctx.places)
    seen, broken = _seen(records)
    versions = {record.name: record.engine_version for record in ctx.records}
    if not seen and not broken:
        yield "None."
    columns = ("name", "state", "profile", "engine", "version", "context", "GPUs", "port", "started")
    yield from table(columns, [_row(each, versions.get(each.name)) for each in seen])
    for each in seen:
        if each.orphans:
            yield f"- processes left by {each.name}: {', '.join(map(str, each.orphans))}"
    yield from (f"- cannot read the record of {item.name}: {item.reason}" for item in broken)


def _seen(records: Records) -> tuple[list[Instance], list[Unreadable]]:
    raw = [records.raw(name) for name in records.names()]
    looked = [item if isinstance(item, Unreadable) else look(item, records) for item in raw if item is not None]
    good = [item for item in looked if isinstance(item, Instance)]
    return good, [item for item in looked if isinstance(item, Unreadable)]


def _row(instance: Instance, version: str | None) -> tuple[str, ...]:
    return (
        instance.name,
        instance.state,
        instance.profile,
        instance.engine,
        version or "unknown",
        str(instance.context),
        ", ".join(map(str, instance.gpus)) or "cpu",
        str(instance.port),
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(instance.since)),
    )


def log(ctx: CheckContext, subject: Subject) -> Iterator[str]:
    """What the log shows, and its last lines that tell something."""
    path = subject.log or _chosen_log(ctx, subject.name)
    if path is None:
        yield "None."
        return
    try:
        # Before lines are taken from it: what a log's lines lose on the way is what tells where a prompt ends.
        text = without_prompts(read_log(path)[0][-_READ:])
    except OSError as fault:
        yield f"cannot read {path}: {fault.strerror}"
        return
    owner = next((record for record in ctx.records if record.log == path), None)
    yield f"{owner.name} ({owner.plan.engine} {owner.engine_version or ''}): {path}" if owner else f"{path}"
    yield ""
    yield from _causes(diagnose(text, owner.plan.engine if owner else None, facts_of(ctx.inventory)))
    lines = telling(text)[-_LINES:]
    yield ""
    yield f"Last {len(lines)} relevant lines:"
    yield from fenced(lines)


def _causes(found: Sequence[Cause]) -> Iterator[str]:
    if not found:
        yield "No known cause of failure."
    for cause in found[:_CAUSES]:
        yield f"- {cause.code} ({cause.confidence:.0%}): {cause.summary}. {cause.remedy}"
        yield from fenced(cause.evidence)


def _chosen_log(ctx: CheckContext, name: str | None) -> Path | None:
    """The log of the instance asked about, else of the newest that crashed, runs, or left one (a start that failed)."""
    records = Records(ctx.places)
    if name is not None and (own := records.run_dir(name) / "log").is_file():
        return own
    seen = sorted(_seen(records)[0], key=lambda each: -each.since)
    ordered = [each for states in ((ENDED,), RUNNING) for each in seen if each.state in states]
    crashed = [each.log for each in ordered if each.state == ENDED and each.log.is_file()]
    failed = [path for path in _logs(records) if not (path.parent / "record.json").exists()]
    live = [each.log for each in ordered if each.log.is_file()]
    return next(iter((*crashed, *failed, *live, *_logs(records))), None)


def _logs(records: Records) -> list[Path]:
    """All logs of instances, the newest first."""
    try:
        found = [path for path in records.folder.glob("*/log") if path.is_file()]
    except OSError:
        return []
    return sorted(found, key=lambda path: -path.stat().st_mtime)


GIB, MIB = 2**30, 2**20


def fenced(lines: Sequence[str]) -> Iterator[str]:
    """Lines as they are, behind a fence that is longer than any run of backticks in them."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield fence + "text"
    yield from lines
    yield fence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table; nothing where there are no rows."""
    if not rows:
        return
    yield _table_row(columns)
    yield _table_row(["---"] * len(columns))
    yield from (_table_row(row) for row in rows)


def size(value: int | None) -> str:
    """Bytes for people; "unknown" for None."""
    if value is None:
        return "unknown"
    return f"{value / GIB:.2f} GiB" if abs(value) >= GIB else f"{value / MIB:.0f} MiB"


def _table_row(cells: Sequence[str]) -> str:
    flat = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(flat)} |"
