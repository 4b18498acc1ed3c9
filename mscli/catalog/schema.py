"""Every key of a profile file and of a model file: what it holds, its default, what it is for."""

from __future__ import annotations

import re

from mscli.catalog import model
from mscli.catalog.profile import ENGINES, KV_TYPES, Needs
from mscli.catalog.sampling import Sampling
from mscli.catalog.types import (
    Key,
    Table,
    checked,
    flag,
    list_of,
    map_of,
    number,
    plain,
    size,
    text,
    whole,
    word,
    written,
)
from mscli.untrusted import stays_below

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Names of profiles, models and variants: they are typed, and they become file names."""

_NAME = text(NAME, "a name of letters, digits, '.', '_' and '-'")
_DATE = written(r"20[0-9]{2}-[01][0-9](-[0-3][0-9])?", "a date such as 2025-03-17")
_VERSION = written(r"[0-9]{1,3}\.[0-9]{1,2}", "a version such as 8.9")
_OPTION = text(r"[A-Za-z][A-Za-z0-9_-]*", "an engine's flag without its leading dashes")
_VARIABLE = text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")


def _host_complaint(host: str) -> str | None:
    """What is wrong with a host to listen on: it must be an IP address or a host name."""
    import ipaddress

    if "/" in host:
        return f"expected an IP address or a host name, got the address '{host}'; leave out http:// and paths"
    if re.fullmatch(r"[^:]+:[0-9]+", host):
        return f"expected an IP address or a host name, got '{host}'; the port has its own key 'port'"
    if re.fullmatch(r"[0-9.]+", host) or ":" in host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return f"'{host}' is not an IP address"
        return None
    label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return None if re.fullmatch(rf"{label}(\.{label})*", host) else f"'{host}' is not a host name"


def _file_complaint(name: str) -> str | None:
    """What is wrong with a name that becomes part of a path."""
    if not name.isprintable():
        return "control characters are not allowed in a name"
    return None if stays_below(name) else f"'{name}' leads out of its folder; write it without '..' and a leading '/'"


_FILE = checked(_file_complaint, "a name")

CONTEXT = Table(
    (
        Key("floor", whole(1, unit="tokens"), "the shortest context in tokens that is still worth starting", 4096),
        Key("target", whole(1, unit="tokens"), "the context in tokens to aim for (none: as large as fits)", None),
        Key("cap", whole(1, unit="tokens"), "the longest context in tokens (none: what the model recommends)", None),
    )
)

NEEDS = Table(
    (
        Key("compute_capability", _VERSION, "the minimum CUDA compute capability of each GPU, such as 8.0", None),
        Key("cuda", _VERSION, "the minimum CUDA version that the driver must offer, such as 12.0", None),
        Key("ram_bytes", size(1), "the minimum host memory, such as 32 GiB", None),
        Key("disk_bytes", size(1), "the minimum free disk space for weights, such as 50 GB", None),
    ),
    Needs,
)

PROFILE = Table(
    (
        Key("title", text(), "a one-line title: what runs on what"),
        Key("engine", word(ENGINES, "engine"), f"the inference engine: {', '.join(ENGINES)}"),
        Key("model", _NAME, "the name of a model of the catalog (a file models/NAME.yaml)"),
        Key("variant", _NAME, "the name of one of that model's weight variants"),
        Key("device", word(("gpu", "cpu"), "device"), "what it runs on: gpu or cpu", "gpu"),
        Key("gpus", list_of(whole(1, 64, "GPUs")), "the GPU counts that it may use, in the order to try", None),
        Key("context", CONTEXT, "the context length that the planner may choose", {}),
        Key("kv_types", list_of(word(KV_TYPES, "KV cache type"), 1), "KV cache types in the order to try", ("f16",)),
        Key("images", whole(0, 1000, "images"), "how many images one request may contain (0: text only)", 0),
        Key("drop_images", flag(), "whether the plan may allow none where they cost too much of the context", False),
        Key("users", whole(1, 100_000, "users"), "how many concurrent requests to plan for", 1),
        Key("offload", flag(), "whether part of the weights may stay in host memory (slow)", False),
        Key("automatic", flag(), "whether `mscli up` may choose it when no profile is named", False),
        Key("rank", whole(0, 10_000), "its place in that choice: lower is preferred where several fit", 100),
        Key("needs", NEEDS, "what the machine must have besides GPU memory", {}),
        Key("host", checked(_host_complaint, "an IP address or a host name"), "where the server listens", "127.0.0.1"),
        Key("port", whole(1, 65535), "the port it listens on (none: a free one is chosen)", None),
        Key("image", text(r"\S+", "a container image"), "the container image, for vllm-docker and --container", None),
        Key("options", map_of(plain(), _OPTION), "additional engine flags, without the leading dashes", {}),
        Key("env", map_of(written(r".*", "text"), _VARIABLE), "environment variables of the engine", {}),
        Key("notes", text(blank=True), "notes for the user", ""),
    )
)

DEFAULTS = Table(
    (
        Key("profile", _NAME, "the profile that `up` and `pull` use when none is given", None),
        Key("host", checked(_host_complaint, "an IP address or a host name"), "the address that `up` listens on", None),
        Key("port", whole(1, 65535), "the port that `up` listens on", None),
        Key(
            "price",
            written(r"\$?[0-9]+(\.[0-9]+)?/[a-z]+", "a price such as 1.20/day"),
            "the price that `plan` compares costs with",
            None,
        ),
        Key("users", whole(1, 100_000, "users"), "how many concurrent requests `up` and `plan` allow for", None),
        Key("prefer", word(("quality", "speed", "context"), "preference"), "what `up` and `plan` prefer", None),
        Key("log", flag(), "whether `chat` saves conversations", None),
    )
)
"""What a user may set once for all commands: each key is an option's name."""

_TEXT = Table(
    (
        Key("parameters", whole(1), "all parameters of the decoder, embedding and output head included"),
        Key("linear_parameters", whole(1), "the parameters inside the layers' matrices, which quantization shrinks"),
        Key("layers", whole(1), "the number of layers"),
        Key("hidden", whole(1), "the width of the residual stream"),
        Key("heads", whole(1), "the number of query heads"),
        Key("kv_heads", whole(1), "the number of key and value heads"),
        Key("head_dim", whole(1), "the width of one head, as given in its config (not hidden / heads)"),
        Key("ffn", whole(1), "the inner width of the feed-forward layer"),
        Key("vocabulary", whole(1), "the number of tokens"),
    ),
    model.Text,
)

_VISION = Table(
    (
        Key("tower_parameters", whole(1), "the parameters of the vision encoder"),
        Key("projector_parameters", whole(1), "the parameters between vision encoder and decoder"),
        Key("layers", whole(1), "the number of layers of the encoder"),
        Key("hidden", whole(1), "the width of the encoder"),
        Key("heads", whole(1), "the number of attention heads of the encoder"),
        Key("ffn", whole(1), "the inner width of the encoder's feed-forward layer"),
        Key("patch", whole(1), "the side of a patch in pixels"),
        Key("image_size", whole(1), "the longest side of an image in pixels"),
        Key("spatial_merge", whole(1), "how many patches per side are merged into one token"),
    ),
    model.Vision,
)

_ARCHITECTURE = Table(
    (
        Key("text", _TEXT, "the sizes of the decoder"),
        Key("vision", _VISION, "the sizes of the vision encoder (none: text only)", None),
    ),
    model.Architecture,
)

_SAMPLING = Table(
    (
        Key("temperature", number(0, 2), "the temperature its authors recommend", None),
        Key("top_p", number(0, 1), "the top-p its authors recommend", None),
        Key("max_tokens", whole(1, unit="tokens"), "the longest reply its authors recommend", None),
    ),
    Sampling,
)

_PRICE = Table(
    (
        Key("seller", text(), "the provider"),
        Key("instead", text(), "the model offered in its place (none: the model itself)", None),
        Key("input_usd_per_mtok", number(), "US dollars per million input tokens"),
        Key("output_usd_per_mtok", number(), "US dollars per million output tokens"),
        Key("date", _DATE, "the date of the price, such as 2026-11-29"),
        Key("source", text(), "the page that states it"),
    ),
    model.Price,
)

_SOURCE = Table(
    (
        Key("kind", word(model.SOURCES, "kind of source"), "where the files come from: hub, ollama or package"),
        Key("repository", text(r"\S+", "a repository or tag"), "the Hugging Face repository or the Ollama tag", ""),
        Key("revision", text(r"\S+", "a revision"), "the revision of the repository", "main"),
        Key("files", list_of(_FILE), "the files needed (glob patterns allowed)", ()),
        Key("projector", _FILE, "the file of the image projector", None),
    ),
    model.Source,
)

_VARIANT = Table(
    (
        Key("format", word(model.FORMATS, "format"), f"the file format: {', '.join(model.FORMATS)}"),
        Key("quantisation", word(model.QUANTISATIONS, "quantisation"), "how the weights are stored once loaded"),
        Key("weights_bytes", size(1), "the size of the text weights once loaded"),
        Key("projector_bytes", size(), "the vision encoder and projector (0: text only)", 0),
        Key("host_bytes", size(), "the part of weights_bytes that stays in host memory at full offload", 0),
        Key("download_bytes", size(), "what is downloaded and stored on disk"),
        Key("bytes_source", text(), "where the four figures come from"),
        Key("source", _SOURCE, "where the files come from"),
    )
)

MODEL = Table(
    (
        Key("title", text(), "the model's full name"),
        Key("released", _DATE, "its release date"),
        Key("license", text(), "its license, as an SPDX identifier"),
        Key("architecture", _ARCHITECTURE, "its sizes"),
        Key("context_limit", whole(1, unit="tokens"), "the longest context it was trained for, in tokens"),
        Key("context_recommended", whole(1, unit="tokens"), "the longest context that its authors recommend", None),
        Key("capabilities", list_of(word(model.CAPABILITIES, "capability")), "what it can do besides chat", ()),
        Key("reasoning", word(model.REASONING, "way of reasoning"), "how it marks its reasoning", "none"),
        Key(
            "tokenizer", word(model.TOKENIZERS, "version of a tokenizer"), "its tokenizer's version (tekken.json)", None
        ),
        Key("sampling", _SAMPLING, "the sampling its authors recommend", {}),
        Key("system_prompt", text(), "the system prompt its authors recommend", None),
        Key("prices", list_of(_PRICE), "what it, or its successor, costs through an API", ()),
        Key("variants", map_of(_VARIANT, _NAME, 1), "the variants of its weights"),
        Key("stand_in", flag(), "whether it is a scripted stand-in that only imitates a model", False),
    )
)
