"""Profile and model files: read, with the checks that take more than one key, and a user's own profile written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mscli.catalog.document import Document, Fault, KeyPath, Node, described, invalid, read_document
from mscli.catalog.model import Architecture, Model, Variant
from mscli.catalog.profile import TENSOR_PARALLEL_ENGINES, ContextRange, Profile, loads
from mscli.catalog.schema import DEFAULTS, MODEL, NAME, PROFILE
from mscli.catalog.types import refuse
from mscli.errors import Code, MscliError
from mscli.frozen import is_frozen, replace
from mscli.paths import shipped_profiles
from mscli.untrusted import stays_below

_MOST_BYTES_PER_PARAMETER = 16
NAME_WANTS = "letters, digits, '.', '_' and '-'"
BESIDE = ("ways", "aliases")
"""Keys of a model's file that are no part of the model."""


def read_model(path: Path) -> Model:
    """The model in `path`, named after the file.

    Raises MscliError(PROFILE_INVALID) with file, line, key and, where there is one, the nearest valid word.
    """
    return model_in(read_document(path))


def model_in(document: Document) -> Model:
    """The model in a file that was read; the ways to run it are left to `mscli.catalog.load`. Raises as read_model."""
    path, faults = document.path, list[Fault]()
    assert isinstance(document.root.value, Mapping)
    own = {key: node for key, node in document.root.value.items() if key not in BESIDE}
    values = MODEL(replace(document.root, value=own), (), faults)
    faults += [
        Fault(node.line, (key,), f"expected a section of keys, got {described(node)}")
        for key in BESIDE
        if (node := document.root.value.get(key)) and not isinstance(node.value, Mapping)
    ]
    if not faults:
        faults.extend(document.located(Fault(0, key, message) for key, message in _model_contradictions(values)))
    if faults:
        raise invalid(path, faults)
    variants = {name: Variant(name=name, **entry) for name, entry in values.pop("variants").items()}
    values["context_recommended"] = values["context_recommended"] or values["context_limit"]
    return Model(name=path.stem, path=path, variants=variants, **values)


def _model_contradictions(values: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    architecture: Architecture = values["architecture"]
    text, limit, recommended = architecture.text, values["context_limit"], values["context_recommended"]
    if text.linear_parameters > text.parameters:
        yield ("architecture", "text", "linear_parameters"), f"more than all {text.parameters:,} parameters"
    if text.heads % text.kv_heads:
        yield ("architecture", "text", "kv_heads"), f"{text.kv_heads} does not divide the {text.heads} heads"
    if recommended is not None and recommended > limit:
        yield ("context_recommended",), f"{recommended} is beyond the model's limit of {limit} tokens"
    if "vision" in values["capabilities"] and architecture.vision is None:
        yield ("capabilities",), "vision needs the sizes of the vision encoder under 'architecture.vision'"
    if ("reasoning" in values["capabilities"]) != (values["reasoning"] != "none"):
        yield ("reasoning",), f"'{values['reasoning']}' contradicts the list 'capabilities'"
    for name, variant in values["variants"].items():
        for key, message in _variant_contradictions(variant, architecture):
            yield ("variants", name, *key), message


def _variant_contradictions(variant: Mapping[str, Any], architecture: Architecture) -> Iterator[tuple[KeyPath, str]]:
    source, vision = variant["source"], architecture.vision
    yield from _too_heavy("weights_bytes", variant, architecture.text.parameters)
    if vision:
        yield from _too_heavy("projector_bytes", variant, vision.tower_parameters + vision.projector_parameters)
    elif variant["projector_bytes"]:
        yield ("projector_bytes",), "must be 0: the model has no vision encoder"
    if variant["host_bytes"] > variant["weights_bytes"]:
        yield ("host_bytes",), f"more than all {variant['weights_bytes']:,} bytes of the weights"
    if (source.kind == "ollama") != (variant["format"] == "ollama"):
        yield ("source", "kind"), f"'{source.kind}' does not match the format '{variant['format']}'"
    if source.kind == "hub" and source.repository.count("/") != 1:
        yield ("source", "repository"), f"expected OWNER/NAME on Hugging Face, got '{source.repository}'"
    for key, name in (("repository", source.repository), ("revision", source.revision)):
        if name and not stays_below(name):
            yield ("source", key), f"'{name}' leads out of its folder; write it without '..' and a leading '/'"
    if source.kind == "ollama" and not source.repository:
        yield ("source", "repository"), "missing; it is the tag of the Ollama library"
    if source.kind != "ollama" and not source.files:
        yield ("source", "files"), "missing; name the weight files"


def _too_heavy(key: str, variant: Mapping[str, Any], parameters: int) -> Iterator[tuple[KeyPath, str]]:
    if variant[key] > parameters * _MOST_BYTES_PER_PARAMETER:
        each = variant[key] / parameters
        yield (
            (key,),
            f"{variant[key]:,} bytes for {parameters:,} parameters is {each:.0f} bytes each; no format takes over 16",
        )


# Flags that the plan, or a key of its own, decides: set twice, the plan would not be what runs. Engines take dashes and
# underscores alike; here they stand with dashes.
DECIDED = {
    **dict.fromkeys(("host", "port"), "it has its own key"),
    **dict.fromkeys(("max-model-len", "ctx-size", "c", "num-ctx"), "set by the key 'context'"),
    **dict.fromkeys(("tensor-parallel-size", "tp", "tensor-split", "main-gpu"), "set by the key 'gpus' and the plan"),
    **dict.fromkeys(("kv-cache-dtype", "cache-type-k", "cache-type-v"), "set by the key 'kv_types'"),
    **dict.fromkeys(("gpu-memory-utilization", "n-gpu-layers", "ngl"), "set by the plan from the free memory"),
    **dict.fromkeys(("api-key",), "mscli creates the key and keeps it out of files and process lists"),
}


def read_profile(path: Path, models: Mapping[str, Model | MscliError]) -> Profile:
    """The profile in `path`, named after the file. `models`: the catalogue's models, or the errors of their files.

    Raises MscliError(PROFILE_INVALID) with file, line, key and, where there is one, the nearest valid word.
    """
    document = read_document(path)
    return profile_in(document, document.root, (), path.stem, models)


def profile_in(
    document: Document, node: Node, key: KeyPath, name: str, models: Mapping[str, Model | MscliError]
) -> Profile:
    """The profile called `name` whose values are `node`, which stands at `key` of a file. Raises as read_profile."""
    faults: list[Fault] = []
    if not re.fullmatch(NAME, name):
        what = "the name of a way" if key else "the file's name"
        faults.append(Fault(node.line if key else 0, key, f"{what} is the profile's name: {NAME_WANTS} only"))
    values = PROFILE(node, key, faults)
    if faults:
        raise invalid(document.path, faults)
    _complete(values, models)
    if found := [*_profile_contradictions(values), *_model_faults(values, models)]:
        raise invalid(document.path, document.located(replace(fault, key=(*key, *fault.key)) for fault in found))
    return Profile(name=name, path=document.path, context=ContextRange(**values.pop("context")), **values)


def _complete(values: dict[str, Any], models: Mapping[str, Model | MscliError]) -> None:
    """Fill the two defaults that hang on other keys: the numbers of GPUs on the device, the cap on the model."""
    if values["gpus"] is None:
        values["gpus"] = (1,) if values["device"] == "gpu" else ()
    model, context = models.get(values["model"]), values["context"]
    if context["cap"] is None and isinstance(model, Model):
        context["cap"] = model.context_recommended


def _profile_contradictions(values: Mapping[str, Any]) -> Iterator[Fault]:
    """What contradicts itself within the file."""
    on_gpu, engine = values["device"] == "gpu", values["engine"]
    if on_gpu and not values["gpus"]:
        yield Fault(0, ("gpus",), "a GPU profile needs at least one GPU count; write [1], or device: cpu")
    if not on_gpu and values["gpus"]:
        yield Fault(0, ("gpus",), "a CPU profile uses no GPUs; write []")
    if not on_gpu and values["automatic"]:
        yield Fault(0, ("automatic",), "a CPU profile is only started by name; write false")
    if values["offload"] and values["automatic"]:
        yield Fault(0, ("automatic",), "a profile with offload is only started by name; write false")
    if engine == "vllm-docker" and not values["image"]:
        yield Fault(0, ("image",), "missing; vllm-docker needs a container image")
    if engine not in ("vllm", "vllm-docker") and values["image"]:
        yield Fault(0, ("image",), f"the engine {engine} does not run in a container; remove it, or use vllm-docker")
    for option in values["options"]:
        if reason := DECIDED.get(option.replace("_", "-")):
            yield Fault(0, ("options", option), f"cannot be set here: {reason}")
    if "CUDA_VISIBLE_DEVICES" in values["env"]:
        yield Fault(0, ("env", "CUDA_VISIBLE_DEVICES"), "cannot be set here: the plan decides it (`mscli up --gpus`)")
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
        yield Fault(0, ("model",), f"the model's file has an error: {model.message}")
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
    if values["images"] and not sees(model, variant):
        yield Fault(0, ("images",), f"{model.name} in the variant '{name}' accepts text only; write 0")


def sees(model: Model, variant: Variant) -> bool:
    """Whether these weights of the model take images."""
    return "vision" in model.capabilities and variant.projector_bytes > 0


def read_defaults(path: Path) -> dict[str, Any]:
    """The user's defaults that are set. Raises MscliError(PROFILE_INVALID) with file, line and key."""
    try:
        document, faults = read_document(path), list[Fault]()
        values = DEFAULTS(document.root, (), faults)
        if faults:
            raise invalid(path, faults)
    except MscliError as fault:
        fault.hint = "Edit the file, or remove a key: mscli config unset KEY"
        raise
    return {key: value for key, value in values.items() if value is not None}


ANNOTATED = "annotated"
"""The stem of the file that explains every key; it lies beside the shipped profiles and is not one of them."""


def new_profile(name: str, based_on: Profile | None, folder: Path) -> Path:
    """Write `folder`/NAME.yaml, with the values of `based_on` (None: the annotated example's) and every key explained.

    The folder is made where it is missing. Raises MscliError: USAGE for a name that cannot be one, FILE when the file
    exists already (it is never overwritten) or cannot be written.
    """
    if not re.fullmatch(NAME, name) or name == ANNOTATED:
        message = f"'{name}' is not a valid profile name"
        raise MscliError(Code.USAGE, message, "use letters, digits, '.', '_' and '-', beginning with a letter or digit")
    path = folder / f"{name}.yaml"
    try:
        text = "\n".join(_filled(_template(), based_on)) + "\n"
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        hint = f"edit it, or choose another name; {path} was not changed"
        raise MscliError(Code.FILE, f"your profile '{name}' already exists", hint) from error
    except OSError as error:
        raise MscliError(
            Code.FILE, f"{path} cannot be written: {error.strerror}", "choose a writable folder"
        ) from error
    return path


def _template() -> list[str]:
    lines = (shipped_profiles() / f"{ANNOTATED}.yaml").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    own = "# Your own profile. `mscli profiles validate` checks it, `mscli profiles` lists it with the shipped ones."
    return [own, *lines[start:]]


def complete(profile: Profile) -> str:
    """A profile as a file of its own, every key given: what `new_profile` writes, without the explanations."""
    from textwrap import fill

    filled = _filled(_template(), profile)
    lines = [line for line in filled if line.strip() and not line.lstrip().startswith("#")]
    if profile.notes and profile.notes == " ".join(profile.notes.split()):  # folding keeps it as it is
        folded = fill(profile.notes, 80, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        lines = [*(line for line in lines if not line.startswith("notes:")), "notes: >-", *folded.splitlines()]
    return "\n".join(lines) + "\n"


def _filled(lines: list[str], based_on: Profile | None) -> Iterator[str]:
    """The template's lines with every value replaced; a section's keys stand below it, indented."""
    section: Any = based_on
    for line in lines:
        match = re.fullmatch(r"(?P<indent> *)(?P<key>[a-z_]+):(?P<value>.*)", line)
        if based_on is None or not match:
            yield line
            continue
        if not match["indent"]:
            section = based_on
        value = getattr(section, match["key"])
        if is_frozen(value):
            section = value
            yield line
        else:
            yield f"{match['indent']}{match['key']}: {written(value)}"


def written(value: Any) -> str:
    """A value in YAML on one line. JSON is YAML, so whatever may need quotes gets JSON's."""
    if isinstance(value, str):
        return (
            value
            if re.fullmatch(r"[A-Za-z][A-Za-z ._-]*|[0-9]+(\.[0-9]+){3}", value) and _stays_text(value)
            else _json(value)
        )
    return _json(dict(value) if isinstance(value, Mapping) else value)


def _stays_text(text: str) -> bool:
    return text.lower() not in ("true", "false", "null") and text == text.strip()


def _json(value: object) -> str:
    """JSON as YAML reads it: emoji unescaped (YAML joins no surrogate pairs), control and break characters escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda match: f"\\u{ord(match[0]):04x}", text)
