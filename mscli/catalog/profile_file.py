"""One profile file as a Profile, with the checks that take more than one key, or the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mscli.catalog.document import Fault, invalid, read_document
from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import TENSOR_PARALLEL_ENGINES, ContextRange, Profile, loads
from mscli.catalog.schema import NAME, PROFILE
from mscli.catalog.types import refuse
from mscli.errors import MscliError

# Flags that the plan, or a key of its own, decides: set twice, the plan would not be what runs. Engines take dashes and
# underscores alike; here they stand with dashes.
DECIDED = {
    **dict.fromkeys(("host", "port"), "it has a key of its own"),
    **dict.fromkeys(("max-model-len", "ctx-size", "c", "num-ctx"), "the key 'context' decides it"),
    **dict.fromkeys(
        ("tensor-parallel-size", "tp", "tensor-split", "main-gpu"), "the key 'gpus' and the plan decide it"
    ),
    **dict.fromkeys(("kv-cache-dtype", "cache-type-k", "cache-type-v"), "the key 'kv_types' decides it"),
    **dict.fromkeys(("gpu-memory-utilization", "n-gpu-layers", "ngl"), "the plan decides it from the free memory"),
    **dict.fromkeys(("api-key",), "mscli makes the key and keeps it out of files and process lists"),
}


def read_profile(path: Path, models: Mapping[str, Model | MscliError]) -> Profile:
    """The profile in `path`, named after the file. `models`: the catalogue's models, or the errors of their files.

    Raises MscliError(PROFILE_INVALID) with file, line, key and, where there is one, the nearest valid word.
    """
    document = read_document(path)
    faults: list[Fault] = []
    if not re.fullmatch(NAME, path.stem):
        faults.append(Fault(0, (), "the file's name is the profile's name: letters, digits, '.', '_' and '-' only"))
    values = PROFILE(document.root, (), faults)
    if faults:
        raise invalid(path, faults)
    _complete(values, models)
    if found := [*_contradictions(values), *_model_faults(values, models)]:
        raise invalid(path, document.located(found))
    return Profile(name=path.stem, path=path, context=ContextRange(**values.pop("context")), **values)


def _complete(values: dict[str, Any], models: Mapping[str, Model | MscliError]) -> None:
    """Fill the two defaults that hang on other keys: the numbers of GPUs on the device, the cap on the model."""
    if values["gpus"] is None:
        values["gpus"] = (1,) if values["device"] == "gpu" else ()
    model, context = models.get(values["model"]), values["context"]
    if context["cap"] is None and isinstance(model, Model):
        context["cap"] = model.context_recommended


def _contradictions(values: Mapping[str, Any]) -> Iterator[Fault]:
    """What contradicts itself within the file."""
    on_gpu, engine = values["device"] == "gpu", values["engine"]
    if on_gpu and not values["gpus"]:
        yield Fault(0, ("gpus",), "a gpu profile needs at least one number of GPUs; write [1], or device: cpu")
    if not on_gpu and values["gpus"]:
        yield Fault(0, ("gpus",), "a cpu profile uses no GPUs; write []")
    if not on_gpu and values["automatic"]:
        yield Fault(0, ("automatic",), "a cpu profile is only started by name; write false")
    if values["offload"] and values["automatic"]:
        yield Fault(0, ("automatic",), "a profile with offload is only started by name; write false")
    if engine == "vllm-docker" and not values["image"]:
        yield Fault(0, ("image",), "missing; vllm-docker needs a container image")
    if engine != "vllm-docker" and values["image"]:
        yield Fault(0, ("image",), f"the engine {engine} runs in no container; remove it, or use vllm-docker")
    for option in values["options"]:
        if reason := DECIDED.get(option.replace("_", "-")):
            yield Fault(0, ("options", option), f"not to be set here: {reason}")
    if "CUDA_VISIBLE_DEVICES" in values["env"]:
        yield Fault(0, ("env", "CUDA_VISIBLE_DEVICES"), "not to be set here: the plan decides it (`mscli up --gpus`)")
    yield from _context_contradictions(values["context"])


def _context_contradictions(context: Mapping[str, Any]) -> Iterator[Fault]:
    floor, target, cap = context["floor"], context["target"], context["cap"]
    if cap is not None and floor > cap:
        yield Fault(0, ("context", "floor"), f"{floor} is above the cap of {cap}")
    if target is not None and target < floor:
        yield Fault(0, ("context", "target"), f"{target} is below the floor of {floor}")
    if target is not None and cap is not None and target > cap:
        yield Fault(0, ("context", "target"), f"{target} is above the cap of {cap}")


def _model_faults(values: Mapping[str, Any], models: Mapping[str, Model | MscliError]) -> Iterator[Fault]:
    """What the model, or one of its variants, cannot do."""
    name, model = values["model"], models.get(values["model"])
    if model is None:
        wrong = refuse(f"unknown model '{name}'", name, sorted(models))
        yield Fault(0, ("model",), wrong.message, wrong.nearest)
    elif isinstance(model, MscliError):
        yield Fault(0, ("model",), f"that model's own file has a fault: {model.message}")
    else:
        if values["context"]["cap"] > model.context_limit:
            limit = f"{model.name} ends at {model.context_limit} tokens"
            yield Fault(0, ("context", "cap"), f"{values['context']['cap']} is beyond the model's limit; {limit}")
        yield from _split_faults(values, model)
        yield from _variant_faults(values, model)


def _split_faults(values: Mapping[str, Any], model: Model) -> Iterator[Fault]:
    """Numbers of GPUs over which the engine cannot split the model."""
    text = model.architecture.text
    by_heads = values["engine"] in TENSOR_PARALLEL_ENGINES
    for place, count in enumerate(values["gpus"]):
        if by_heads and text.kv_heads % count:
            fitting = ", ".join(str(n) for n in range(1, text.kv_heads + 1) if text.kv_heads % n == 0)
            message = f"{count} GPUs cannot share {text.kv_heads} KV heads evenly; {fitting} can"
            yield Fault(0, ("gpus", str(place)), message)
        elif not by_heads and count > text.layers:
            yield Fault(0, ("gpus", str(place)), f"{count} GPUs cannot share {text.layers} layers")


def _variant_faults(values: Mapping[str, Any], model: Model) -> Iterator[Fault]:
    name, engine = values["variant"], values["engine"]
    usable = [other for other, stored in model.variants.items() if loads(engine, stored)]
    variant = model.variants.get(name)
    if variant is None:
        wrong = refuse(f"{model.name} has no variant '{name}'", name, usable or sorted(model.variants))
        yield Fault(0, ("variant",), wrong.message, wrong.nearest)
        return
    if not loads(engine, variant):
        wrong = refuse(f"{engine} cannot load '{name}' ({variant.format}, {variant.quantisation})", name, usable)
        yield Fault(0, ("variant",), wrong.message, wrong.nearest)
    if values["images"] and not _sees(model, variant):
        yield Fault(0, ("images",), f"{model.name} in the variant '{name}' takes text only; write 0")


def _sees(model: Model, variant: Variant) -> bool:
    return "vision" in model.capabilities and variant.projector_bytes > 0
