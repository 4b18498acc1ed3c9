"""vLLM's command line for a plan, spelt as the installed version wants it.

Spellings were read in the sources of the releases 0.8.1, 0.8.4, 0.8.5, 0.9.2, 0.10.0, 0.10.1, 0.10.2, 0.22.1, 0.23.0,
0.24.0, 0.26.0 and 0.32.0; all flags not in the table are the same in each of them. Beside them the flags that newer
releases refuse under their old name; only what is the same thing under another name stands there, its value unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import OptionValue
from mscli.catalog.sampling import Sampling
from mscli.engines.engine import Serving
from mscli.frozen import frozen
from mscli.planning.plan import Plan
from mscli.planning.request import parse_version

Version = tuple[int, ...]
Flags = dict[str, tuple[str, ...]]


@frozen
class Spelling:
    """How a thing is said from version `since` on: `words` begin with the flag, {} is the value; () is not at all."""

    since: Version
    words: tuple[str, ...]


# By what is said, newest spelling first.
SPELLINGS: Mapping[str, tuple[Spelling, ...]] = {
    # JSON and key=value from 0.8.5 on, JSON alone from 0.10.0 on
    "images": (
        Spelling((0, 8, 5), ("--limit-mm-per-prompt", '{{"image": {}}}')),
        Spelling((0,), ("--limit-mm-per-prompt", "image={}")),
    ),
    # the parser of [THINK] tokens
    "reasoning": (
        Spelling((0, 10), ("--reasoning-parser", "mistral")),
        Spelling((0,), ()),
    ),
    # until then every prompt was written into the log
    "private": (
        Spelling((0, 10, 1), ()),
        Spelling((0,), ("--disable-log-requests",)),
    ),
}
# Before, GPU UUIDs in CUDA_VISIBLE_DEVICES ended in `invalid literal for int()`.
KNOWS_UUIDS: Version = (0, 24)


def spelt(what: str, version: Version | None, value: object = "") -> tuple[str, ...]:
    """The words for `what` in this version (None: the newest); empty where it cannot be said."""
    spellings = SPELLINGS[what]
    chosen = spellings[0] if version is None else next(each for each in spellings if version >= each.since)
    return tuple(word.format(value) for word in chosen.words)


def flags(
    plan: Plan, model: Model, serving: Serving, options: Mapping[str, OptionValue], version: Version | None
) -> tuple[str, ...]:
    """All flags after the model. A flag that the profile's options set themselves is said once, as they set it."""
    variant = model.variants[plan.variant]
    derived: Flags = {
        **_words(("--host", serving.host), ("--port", str(serving.port))),
        **_names(serving, variant),
        **_format(variant),
        **_tools(model),
        **_words(spelt("reasoning", version) if model.reasoning == "think-tokens" else ()),
        **_words(spelt("images", version, plan.images) if model.architecture.vision else ()),
        **_memory(plan),
        **_generation(model.sampling),
        **_words(spelt("private", version)),
    }
    # The plan was made within the limit of that key, and may need less.
    said = {key: value for key, value in options.items() if value is not False and key != "gpu-memory-utilization"}
    given = {f"--{key.replace('_', '-')}": _given(value) for key, value in said.items()}
    return tuple(word for flag, values in {**derived, **given}.items() for word in (flag, *values))


def _words(*groups: tuple[str, ...]) -> Flags:
    return {group[0]: group[1:] for group in groups if group}


def _given(value: OptionValue) -> tuple[str, ...]:
    """An option's value as given; True stands alone."""
    return () if value is True else (str(value),)


def _names(serving: Serving, variant: Variant) -> Flags:
    """Names under which clients may ask: the stable one first, and the repository's, which guides use."""
    names = dict.fromkeys((serving.alias, variant.source.repository))
    return {"--served-model-name": tuple(name for name in names if name)}


def _format(variant: Variant) -> Flags:
    """All three flags or none: with tokenizer and weights in different formats vLLM dies on the first image."""
    if variant.format != "safetensors-mistral":
        return {}
    return dict.fromkeys(("--tokenizer-mode", "--config-format", "--load-format"), ("mistral",))


def _tools(model: Model) -> Flags:
    if "tools" not in model.capabilities:
        return {}
    return {"--tool-call-parser": ("mistral",), "--enable-auto-tool-choice": ()}


def _memory(plan: Plan) -> Flags:
    """What the plan counted with, so that no version's own default differs from it."""
    found: Flags = {"--max-model-len": (str(plan.context),)}
    if plan.tensor_parallel > 1:
        found["--tensor-parallel-size"] = (str(plan.tensor_parallel),)
    if plan.kv_type != "f16":
        found["--kv-cache-dtype"] = (plan.kv_type,)
    settings = {
        "gpu_memory_utilization": "--gpu-memory-utilization",
        "max_num_batched_tokens": "--max-num-batched-tokens",
        "max_num_seqs": "--max-num-seqs",
        "cpu_offload_gib": "--cpu-offload-gb",  # vLLM multiplies by 2**30
    }
    return {**found, **{flag: (str(plan.settings[name]),) for name, flag in settings.items() if name in plan.settings}}


def _generation(sampling: Sampling) -> Flags:
    """Defaults for requests that do not say how to sample."""
    wanted = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    values = {name: value for name, value in wanted.items() if value is not None}
    return {"--override-generation-config": (json.dumps(values),)} if values else {}


@frozen
class Renamed:
    """`old` is refused from version `since` on, as far as the releases that were read tell; `new` is taken there."""

    old: str
    new: str
    since: Version


# Read in the parsers of 0.10.2 (old names) and of 0.22.1 and 0.32.0 (new ones). In between some releases take both.
RENAMED: tuple[Renamed, ...] = (
    Renamed("cuda-graph-sizes", "cudagraph-capture-sizes", (0, 22, 1)),
    Renamed("override-pooler-config", "pooler-config", (0, 22, 1)),
    Renamed("disable-log-requests", "no-enable-log-requests", (0, 22, 1)),
)


def renamed(version: str | None, options: Iterable[str]) -> Mapping[str, str]:
    """Of a profile's `options`, those that this version refuses as they are spelt, each with the name it takes.

    `version` None: not known, then none.
    """
    numbers = parse_version(version)
    new = {each.old: each.new for each in RENAMED if numbers and numbers >= each.since}
    # vLLM's parser makes no difference between hyphens and underscores
    return {option: new[flag] for option in options if (flag := option.replace("_", "-")) in new}
