"""What a profile's options and files do to format, sampling, images and tools; the user's profiles at every visit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase

from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import OptionValue, Profile
from mscli.doctor.checks.check import Finding, Severity, counted, fail, ok, warn
from mscli.doctor.checks.chosen import local_weights
from mscli.doctor.checks.context import CheckContext
from mscli.engines.table import STARTABLE, engine
from mscli.errors import MscliError
from mscli.frozen import frozen

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
