"""Checks of profiles: whether this user's own are valid, and all that the profile asked about needs.

A broken profile, model or pin of the user's hides the shipped one of its name.
"""

from __future__ import annotations

from collections.abc import Iterator

from mscli.doctor.checks.check import Check, Finding, counted, fail, ok, shell, skipped, warn
from mscli.doctor.checks.chosen import located, own_instance, plan, startable
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.profile.options import files_format, sampling, tools, vision
from mscli.engines.engine import Adopted, Hosted, Installation
from mscli.engines.table import engine, offer
from mscli.errors import Code, MscliError
from mscli.lifecycle.pinned import load_pins
from mscli.lifecycle.preview import somewhere
from mscli.lifecycle.snapshot import missing_engine
from mscli.planning.figures import gib, tokens
from mscli.planning.plan import SAFE, GpuMemory, NoFit, Plan
from mscli.weights.files import WeightFiles


def fits(ctx: CheckContext) -> Iterator[Finding]:
    """The plan on this machine as it is now, with its figures."""
    if ctx.chosen is None:
        yield skipped("no profile given (`mscli doctor PROFILE` checks one)")
        return
    found, name = plan(ctx), ctx.chosen.profile.name
    if isinstance(found, NoFit):
        yield _refused(ctx, found)
        return
    again = own_instance(ctx)
    evidence = [*found.reasons, *found.steps, *(_bar(each) for each in found.memory)]
    beside = f" (replacing {again}, which is running)" if again else ""
    if found.verdict == SAFE:
        yield ok(f"{name} fits: {tokens(found.context)}, {found.kv_type} KV cache{beside}", *evidence)
    else:
        cause = "oom_kv" if found.devices else "host_ram"
        remedy = "Free memory, or use fewer users or images, or a smaller quantization:"
        yield warn(cause, f"{name} is tight: {found.reasons[0]}", remedy, *evidence, command=f"mscli plan {name}")


def _refused(ctx: CheckContext, found: NoFit) -> Finding:
    name = found.profile
    nearest = f"mscli up {name} {found.nearest}" if found.nearest else None
    remedy = "Nearest that fits:" if found.nearest else "See what fits: mscli profiles"
    more = [ctx.inventory.nvml.message] if ctx.inventory.nvml and found.cause != "host_ram" else []
    seen = f"{name} is too big: {found.reasons[0]}"
    return fail(found.cause, seen, remedy, *found.reasons[1:], *map(_bar, found.memory), *more, command=nearest)


def _bar(memory: GpuMemory) -> str:
    """One GPU's memory in a line."""
    parts = {
        "weights": memory.weights_bytes,
        "projector": memory.projector_bytes,
        "KV cache": memory.kv_bytes,
        "compute": memory.compute_bytes + memory.graphs_bytes,
        "runtime": memory.runtime_bytes,
    }
    taken = ", ".join(f"{what} {gib(size)}" for what, size in parts.items() if size)
    left = f"{gib(memory.margin_bytes)} left" if memory.margin_bytes >= 0 else f"{gib(-memory.margin_bytes)} short"
    held = f", other processes {gib(memory.held_bytes)}" if memory.held_bytes else ""
    return f"GPU {memory.gpu} ({memory.name}): {taken}; {left} of {gib(memory.free_bytes)} free{held}"


def context(ctx: CheckContext) -> Iterator[Finding]:
    """The context that was planned, against what the profile aims for and what the model is good for."""
    if ctx.chosen is None or isinstance(found := plan(ctx), NoFit):
        return
    profile, model = ctx.chosen.profile, ctx.chosen.model
    target = profile.context.target
    if target and found.context < target:
        yield warn(
            "oom_kv" if found.devices else "host_ram",
            f"context {found.context:,} of {tokens(target)} that {profile.name} aims for (longer prompts are refused)",
            "Free memory, or use a smaller KV cache type (kv_types) or quantization:",
            *found.steps,
            command=f"mscli plan {profile.name} --ctx {target}",
        )
    elif found.context > model.context_recommended:
        remedy = f"Set context.cap to {model.context_recommended}."
        seen = f"context {found.context:,} above the {model.context_recommended:,} recommended for {model.title}"
        yield warn(None, seen, remedy)
    else:
        yield ok(f"context {found.context:,} of {tokens(model.context_limit)}")


def engine_found(ctx: CheckContext) -> Iterator[Finding]:
    """The engine as `mscli up` would use it: found, running where it serves already, and able to do what is planned."""
    if ctx.chosen is None:
        return
    name = ctx.chosen.profile.engine
    if not startable(ctx):
        remedy = "Use a profile on another engine:"
        seen = f"this release cannot start {name}"
        yield fail("engine_missing", seen, remedy, command="mscli profiles")
        return
    found = located(ctx)
    if isinstance(found, MscliError) and found.details.get("late"):
        yield skipped(found.message)
        return
    if isinstance(found, MscliError):
        yield _missing(ctx, name, found)
        return
    yield from _able(ctx, found)


def _missing(ctx: CheckContext, name: str, found: MscliError) -> Finding:
    """What `mscli up` would say: that it installs the engine first, or why it cannot and what to do."""
    assert ctx.chosen is not None
    device, install = ctx.chosen.profile.device, f"mscli engines install {name}"
    refused = missing_engine(name, found, device, ctx.inventory)
    if refused is None:
        made = offer(name, device, ctx.inventory)
        remedy = f"`mscli up` installs {made.what} first (about {made.download_bytes / 1e9:.1f} GB). Or now:"
        return warn(_cause(found), found.message, remedy, command=install)
    return fail(_cause(refused), refused.message, refused.hint, command=install if install in refused.hint else None)


def _able(ctx: CheckContext, found: Installation | Adopted) -> Iterator[Finding]:
    assert ctx.chosen is not None
    chosen, known = ctx.chosen, engine(ctx.chosen.profile.engine)
    where = str(found.path) if isinstance(found, Installation) else f"server at {found.host}:{found.port}"
    warnings: tuple[str, ...] = ()
    try:
        if isinstance(found, Adopted):
            assert isinstance(known, Hosted)
            warnings = known.check(found, chosen.profile, chosen.model)
        elif isinstance(planned := plan(ctx), Plan):
            weights = WeightFiles(chosen.variant.source.repository, chosen.variant.source.projector, 0)
            serving = somewhere(chosen.profile, chosen.model, ctx.places)
            known.command(planned, chosen.profile, chosen.model, weights, serving, found)
    except MscliError as refusal:
        yield fail(_cause(refusal), refusal.message, refusal.hint)
        return
    for warning in warnings:
        yield warn(None, warning, "")
    yield ok(f"{known.name} {found.version or '(version unknown)'}: {where}")


def _cause(fault: MscliError) -> str | None:
    cause = fault.details.get("cause")
    if isinstance(cause, str):
        return cause
    return {Code.ENGINE_MISSING: "engine_missing", Code.ENGINE_UNSUPPORTED: "version_backend_old"}.get(fault.code)


def user_files(ctx: CheckContext) -> Iterator[Finding]:
    """Every file of the user's is valid. Nothing else is read where there are none."""
    folder = ctx.places.profiles
    try:
        load_pins(ctx.places)
        own = sorted(path for path in (*folder.glob("*.yaml"), *folder.glob("models/*.yaml")))
        broken = ctx.catalog.broken if own else ()
    except MscliError as fault:
        yield fail(None, fault.message, fault.hint)
        return
    except OSError as fault:
        yield fail("permissions", f"cannot read {folder}: {fault.strerror}", "Change its owner.")
        return
    for error in broken:
        name = str(error.details.get("profile") or error.details.get("model") or "")
        path = folder / ("" if "profile" in error.details else "models") / f"{name}.yaml"
        yield warn(None, error.message, error.hint, command=f"mscli profiles validate {shell(path)}")
    if not own:
        yield skipped(f"no user profiles in {folder}")
    elif not broken:
        yield ok(f"{counted(len(own), 'user file')} in {folder}, valid")


CHECKS = (
    Check("profile.file", user_files),
    # These look at an engine, which may take its time to tell its version; nothing of it happens without a profile.
    Check("profile.plan", fits, deadline_s=6.0),
    Check("profile.context", context, deadline_s=6.0),
    Check("profile.engine", engine_found, deadline_s=6.0),
    Check("profile.format", files_format),
    Check("profile.sampling", sampling),
    Check("profile.vision", vision),
    Check("profile.tools", tools),
)
