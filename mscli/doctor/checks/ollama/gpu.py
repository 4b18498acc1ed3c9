"""Whether Ollama computes on the GPU: by what it holds in memory, and by its own log."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mscli.diagnosis.diagnose import RankedCause, diagnose
from mscli.diagnosis.facts import facts_of
from mscli.diagnosis.log import read_log
from mscli.doctor.checks.check import Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.ollama.view import NAME, view
from mscli.doctor.checks.program import run
from mscli.engines.ollama.api import Api, Refusal
from mscli.engines.ollama.server import UNIT

_LINES = 400
_JOURNAL_TIMEOUT_S = 1.5
_BEGINS = re.compile(r'msg="server config"|Started ollama\.service|Starting ollama\.service')
_NOT_ALLOWED = re.compile(r"not seeing messages from other users|insufficient permissions", re.IGNORECASE)
_SURE = 0.5
# What keeps every model off the GPUs, for as long as this server runs.
_WHOLE = frozenset(
    (
        *("no_driver", "nvml_not_found", "nvml_mismatch", "driver_too_old", "driver_vs_compat", "wsl", "suspend"),
        *("fabric_manager", "visible_devices", "container_gpu_lost", "backend_no_gpu_build", "compute_capability"),
        "cuda_arch",
    )
)
_NO_GPU_FOUND = re.compile(r"inference compute.*library=cpu|no compatible GPUs were discovered")
# What was so when a request or a load failed may be over.
_PASSING = frozenset(["oom_weights", "oom_kv", "gpu_busy", "host_ram", "cpu_fallback", "context_truncated"])


def gpu_use(ctx: CheckContext) -> Iterator[Seen]:
    """Which part of each model in memory sits on the GPUs."""
    server = view(ctx).server
    if server is None or not server.local:
        yield skipped("no Ollama server answers on this machine")
        return
    try:
        models = Api(server.address.host, server.address.port).in_memory()
    except Refusal as refusal:
        yield warn(None, f"the server does not tell what it holds in memory: {refusal.words}", "Restart it.")
        return
    if not models:
        yield ok("no model is in the server's memory")
    for name, held in models.items():
        share = held.gpu_bytes / held.size_bytes if held.size_bytes else 1.0
        context = f", context {held.context}" if held.context else ""
        if share >= 1 or not ctx.inventory.gpus:
            yield ok(f"{name}: {share:.0%} on the GPU{context}")
        else:
            yield _fallen(name, share, context)


def _fallen(name: str, share: float, context: str) -> Seen:
    status = warn if share else fail
    return status(
        "cpu_fallback",
        f"{name}: only {share:.0%} of it is on a GPU{context}",
        "Its log says why (`journalctl -u ollama`). Mostly too little memory was free: less context, or `mscli gpus`.",
        command="ollama ps",
    )


def gpu_log(ctx: CheckContext) -> Iterator[Seen]:
    """What the server's own log says since it was last started."""
    where, log = _log(ctx)
    if log is None:
        yield skipped(where)
        return
    begins = [match.start() for match in _BEGINS.finditer(log)]
    running = view(ctx).server is not None
    recent = log[begins[-1] :] if begins and running else log
    gpus = bool(ctx.inventory.gpus)
    causes = [
        cause
        for cause in diagnose(recent, NAME, facts_of(ctx.inventory))
        if cause.confidence >= _SURE and (gpus or cause.code not in _WHOLE | {"cpu_fallback"})
    ]
    if not causes:
        yield ok(f"{where}: nothing that keeps it from working")
    for cause in causes[:2]:
        yield _told(cause, where, running, bool(_NO_GPU_FOUND.search(recent)))


def _told(cause: RankedCause, where: str, running: bool, blind: bool) -> Seen:
    """`blind`: the server found no GPU when it started, so that everything it loads is on the CPU."""
    lasting = cause.code in _WHOLE or (cause.code == "cpu_fallback" and blind)
    bad = lasting or (not running and cause.code not in _PASSING)
    status = fail if bad else warn
    return status(cause.code, f"{where}: {cause.summary}", cause.remedy, *cause.evidence[:3])


def _log(ctx: CheckContext) -> tuple[str, str | None]:
    """Where the log was found and its end, or why there is none."""
    seen = view(ctx)
    server = seen.server
    for record in ctx.records:
        if record.plan.engine == NAME and record.identity and server and record.port == server.address.port:
            try:
                return f"the log of instance {record.name}", read_log(record.log)[0]
            except OSError as fault:
                return f"{record.log} cannot be read ({fault.strerror})", None
    if seen.service is None or (server and server.service is None):
        return "no log of an Ollama service or instance that runs", None
    asked = ("journalctl", "-u", UNIT, "-b", "-n", str(_LINES), "--no-pager", "-o", "cat")
    told = run(ctx, *asked, timeout_s=_JOURNAL_TIMEOUT_S)
    if told is None or told.status is None:
        return "journalctl did not answer", None
    text = told.out.strip()
    if _NOT_ALLOWED.search(told.err) and (not text or text.startswith("-- No entries")):
        return "this user may not read the service's log: `sudo journalctl -u ollama | mscli doctor --log -`", None
    if not text or text.startswith("-- No entries"):
        return "the service's log is empty since the machine started", None
    return "the service's log", text
