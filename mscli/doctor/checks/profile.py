"""Checks of profiles: whether this user's own are valid, and all that the profile asked about needs.

A broken profile, model or pin of the user's hides the shipped one of its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase

from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import OptionValue, Profile
from mscli.doctor.checks.check import Check, CheckContext, Finding, Severity, counted, fail, ok, shell, skipped, warn
from mscli.doctor.checks.chosen import local_weights, located, own_instance, plan, startable
from mscli.engines.engine import Adopted, Hosted, Installation
from mscli.engines.table import STARTABLE, engine
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.lifecycle.pinned import load_pins
from mscli.lifecycle.preview import somewhere
from mscli.lifecycle.snapshot import offered
from mscli.planning.plan import SAFE, GpuMemory, NoFit, Plan, gib, tokens
from mscli.weights.progress import WeightFiles


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
    try:
        made = offered(name, found, device, ctx.inventory)
    except MscliError as why:
        return fail(_cause(why), why.message, why.hint, command=install if install in why.hint else None)
    remedy = f"`mscli up` installs {made.what} first (about {made.download_bytes / 1e9:.1f} GB). Or now:"
    return warn(_cause(found), found.message, remedy, command=install)


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


_TRIPLE = ("tokenizer-mode", "config-format", "load-format")
# Further from the makers' temperature than this, answers get worse: 0.15 of Small 3.x ends at 0.5.
_FAR = 0.35
# What each layout must hold beside the weights.
_LAYOUTS = {
    "safetensors-mistral": ("params.json", "tekken.json", "consolidated*.safetensors"),
    "safetensors-hf": ("config.json", "*.safetensors"),
    "gguf": ("*.gguf",),
}


@frozen
class _Subject:
    """A profile that is looked at, and how what is wrong with it counts."""

    profile: Profile
    model: Model
    variant: Variant
    severity: Severity

    def option(self, *names: str) -> tuple[str, OptionValue] | None:
        """The first of these options that is set, with dashes or underscores, as it is written and its value."""
        wanted = {name.replace("_", "-") for name in names}
        return next(
            ((key, value) for key, value in self.profile.options.items() if key.replace("_", "-") in wanted), None
        )

    def wrong(self, code: str, seen: str, remedy: str, *evidence: str) -> Finding:
        """A finding about this profile."""
        return self.severity(code, f"{self.profile.name}: {seen}", remedy, *evidence, str(self.profile.path))


def _subjects(ctx: CheckContext) -> Iterator[_Subject]:
    """The profile asked about, else all of the user's own."""
    if ctx.chosen is not None:
        yield _Subject(ctx.chosen.profile, ctx.chosen.model, ctx.chosen.variant, fail)
        return
    if not any(ctx.places.profiles.glob("*.yaml")):
        return
    try:
        catalog = ctx.catalog
    except MscliError:  # profile.file tells of it
        return
    for profile in catalog.profiles.values():
        if profile.path.parent == ctx.places.profiles:
            yield _Subject(profile, *catalog.model_of(profile), warn)


def files_format(ctx: CheckContext) -> Iterator[Finding]:
    """vLLM's three flags for Mistral's format: all or none, as the files are; and the files themselves."""
    for subject in _subjects(ctx):
        found = [*_mixed_flags(subject)]
        if ctx.chosen is not None:
            found += _files_missing(ctx, subject)
        yield from found
        if ctx.chosen is not None and not found:
            yield ok(f"{subject.variant.format}: flags and files match")


def _mixed_flags(subject: _Subject) -> Iterator[Finding]:
    if not subject.profile.engine.startswith("vllm"):
        return
    native = subject.variant.format == "safetensors-mistral"
    for name in _TRIPLE:
        given = subject.option(name)
        if given is None or (given[1] == "mistral") == native or given[1] == "auto":
            continue
        if not native and name == "tokenizer-mode" and subject.profile.images == 0:
            continue  # for text alone Mistral's tokenizer goes with the other layout
        files = "Mistral format" if native else "Hugging Face format"
        yield subject.wrong(
            "tokenizer_format",
            f"option {given[0]}: {given[1]} does not match the weights ({files})",
            "Remove it: mscli sets --tokenizer-mode, --config-format and --load-format to match the files.",
        )


def _files_missing(ctx: CheckContext, subject: _Subject) -> Iterator[Finding]:
    found = local_weights(ctx)
    if found is None or not found.whole:
        return
    names = [str(path.relative_to(found.where)) for path in found.where.rglob("*") if path.is_file()]
    absent = [name for name in _LAYOUTS.get(subject.variant.format, ()) if not any(fnmatchcase(n, name) for n in names)]
    if absent:
        yield fail(
            "tokenizer_format",
            f"{found.where} has no {' and no '.join(absent)} (needed by {subject.variant.format})",
            "Download it again, or use a variant in the format that is there:",
            command=f"mscli pull {subject.profile.name}",
        )


def sampling(ctx: CheckContext) -> Iterator[Finding]:
    """A temperature in the options, against the one its authors recommend."""
    for subject in _subjects(ctx):
        wanted, given = subject.model.sampling.temperature, _temperature(subject)
        if wanted is None:
            continue
        if given is not None and abs(given[1] - wanted) > _FAR:
            yield subject.wrong(
                "sampling",
                f"{given[0]} sets temperature {given[1]:g} ({subject.model.title}: {wanted:g} recommended)",
                f"Remove it: mscli sets {wanted:g} as the default.",
            )
        elif ctx.chosen is not None:
            yield ok(f"default temperature {given[1] if given else wanted:g}")


def _temperature(subject: _Subject) -> tuple[str, float] | None:
    """Where the options set a default temperature, and to what."""
    given = subject.option("temp", "temperature")
    if given is not None:
        return _number(given[0], given[1])
    given = subject.option("override-generation-config")
    if given is None:
        return None
    try:
        values = json.loads(str(given[1]))
    except ValueError:
        return None
    return _number(given[0], values.get("temperature")) if isinstance(values, dict) else None


def _number(name: str, value: object) -> tuple[str, float] | None:
    try:
        return name, float(str(value))
    except ValueError:
        return None


def vision(ctx: CheckContext) -> Iterator[Finding]:
    """Whether images work where they are wanted."""
    for subject in _subjects(ctx):
        found = list(_blind(subject))
        yield from found
        if ctx.chosen is not None and not found:
            yield ok(_snapshot(subject))


def _blind(subject: _Subject) -> Iterator[Finding]:
    profile, variant = subject.profile, subject.variant
    wants = subject.option("mmproj", "limit-mm-per-prompt")
    if "vision" not in subject.model.capabilities:
        return
    if profile.images == 0 and wants is not None:
        remedy = "Set images to the number per request; mscli plans their memory and sets the flag."
        yield subject.wrong("vision", f"option {wants[0]} with images: 0", remedy)
    if profile.images and variant.format == "gguf" and variant.source.projector is None:
        remedy = "Use a variant with a projector file, or set images: 0."
        yield subject.wrong("vision", f"variant {variant.name} has no projector (text only)", remedy)
    off = subject.option("no-mmproj", "language-model-only", "text-only")
    if profile.images and off is not None and off[1] is not False:
        remedy = "Remove the option, or set images: 0."
        yield subject.wrong("vision", f"option {off[0]} turns images off, but images: {profile.images}", remedy)
    if profile.images and wants is not None and wants[0].startswith("limit") and _none_allowed(wants[1]):
        remedy = "Remove the option: mscli sets it from images."
        yield subject.wrong("vision", f"option {wants[0]} allows no image, but images: {profile.images}", remedy)


def _none_allowed(value: OptionValue) -> bool:
    return str(value).replace(" ", "").strip("{}").replace('"', "") in ("image:0", "image=0")


def _snapshot(subject: _Subject) -> str:
    if "vision" not in subject.model.capabilities:
        return f"{subject.model.title} is text only"
    if subject.profile.images == 0:
        return "text only (images: 0)"
    return f"{counted(subject.profile.images, 'image')} per request, projector planned"


def tools(ctx: CheckContext) -> Iterator[Finding]:
    """Whether tool calls come back as tool calls."""
    for subject in _subjects(ctx):
        if "tools" not in subject.model.capabilities:
            continue
        found = list(_toolless(subject))
        yield from found
        if ctx.chosen is not None and not found:
            yield ok(_calls(subject))


def _toolless(subject: _Subject) -> Iterator[Finding]:
    name = subject.profile.engine
    parser, template = subject.option("tool-call-parser"), subject.option("chat-template", "chat-template-file")
    if name.startswith("vllm") and parser is not None and parser[1] != "mistral":
        remedy = "Remove it: mscli sets --tool-call-parser mistral and --enable-auto-tool-choice."
        yield subject.wrong("tools", f"option {parser[0]}: {parser[1]} does not parse this model's tool calls", remedy)
    jinja = subject.option("no-jinja", "jinja")
    if name == "llama.cpp" and jinja is not None and (jinja[0] == "no-jinja") == (jinja[1] is True):
        remedy = "Remove it: mscli starts llama-server with --jinja, which tool calls need."
        yield subject.wrong("tools", f"option {jinja[0]} turns off the template that tool calls need", remedy)
    if name == "llama.cpp" and template is not None and not str(template[1]).endswith((".jinja", ".txt")):
        remedy = "Remove it: mscli gives llama-server a template that supports tools."
        seen = f"option {template[0]}: {template[1]} replaces the template that supports tools"
        yield subject.wrong("tools", seen, remedy)


def _calls(subject: _Subject) -> str:
    name = subject.profile.engine
    if name in STARTABLE and not engine(name).capabilities.tools:
        return f"no tool calls ({name} does not support them with this model)"
    return f"tool calls set up for {name} (`mscli check` tests one)"


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
