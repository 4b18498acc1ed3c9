"""One model file as a Model, with the checks that take more than one key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mscli.catalog.document import Fault, KeyPath, invalid, read_document
from mscli.catalog.model import Architecture, Model, Variant
from mscli.catalog.schema import MODEL

_MOST_BYTES_PER_PARAMETER = 16


def read_model(path: Path) -> Model:
    """The model in `path`, named after the file.

    Raises MscliError(PROFILE_INVALID) with file, line, key and, where there is one, the nearest valid word.
    """
    document = read_document(path)
    faults: list[Fault] = []
    values = MODEL(document.root, (), faults)
    if not faults:
        faults.extend(document.located(Fault(0, key, message) for key, message in _contradictions(values)))
    if faults:
        raise invalid(path, faults)
    variants = {name: Variant(name=name, **entry) for name, entry in values.pop("variants").items()}
    values["context_recommended"] = values["context_recommended"] or values["context_limit"]
    return Model(name=path.stem, path=path, variants=variants, **values)


def _contradictions(values: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    architecture: Architecture = values["architecture"]
    text, limit, recommended = architecture.text, values["context_limit"], values["context_recommended"]
    if text.linear_parameters > text.parameters:
        yield ("architecture", "text", "linear_parameters"), f"more than all {text.parameters:,} parameters"
    if text.heads % text.kv_heads:
        yield ("architecture", "text", "kv_heads"), f"{text.kv_heads} does not divide the {text.heads} heads"
    if recommended is not None and recommended > limit:
        yield ("context_recommended",), f"{recommended} is beyond the model's limit of {limit} tokens"
    if "vision" in values["capabilities"] and architecture.vision is None:
        yield ("capabilities",), "vision needs the sizes of the image tower under 'architecture.vision'"
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
        yield ("projector_bytes",), "must be 0: the model has no image tower"
    if variant["host_bytes"] > variant["weights_bytes"]:
        yield ("host_bytes",), f"more than all {variant['weights_bytes']:,} bytes of the weights"
    if (source.kind == "ollama") != (variant["format"] == "ollama"):
        yield ("source", "kind"), f"'{source.kind}' does not go with the format '{variant['format']}'"
    if source.kind == "hub" and source.repository.count("/") != 1:
        yield ("source", "repository"), f"expected OWNER/NAME on Hugging Face, got '{source.repository}'"
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
