"""`python -m mscli.engines.llamacpp.embedded FLAGS`: llama.cpp's own server out of the xllamacpp wheel.

It takes llama-server's flag spellings for the flags that mscli uses, words its complaints as llama-server does and
exits with its statuses, so that one engine description serves both. The wheel has no command of its own, only the C++
server to be started from Python.

This module is the first thing in a process of its own: it imports next to nothing, to be up as soon as llama-server is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
GPU_LAYERS = {"auto": -1, "all": -2}
ON_OFF = {"on": True, "off": False}

# `CommonParams` of the wheel, which brings no types.
Params = Any
Setter = Callable[[Params, str], None]


class BadArgumentError(Exception):
    """A command line that llama-server would refuse, in its words."""


def _into(path: str, convert: Callable[[str], object] = str) -> Setter:
    """Puts a flag's converted value into the parameter at a dotted path ("model.path")."""
    *owners, name = path.split(".")

    def put(params: Params, text: str) -> None:
        for owner in owners:
            params = getattr(params, owner)
        setattr(params, name, convert(text))

    return put


def _each(*setters: Setter) -> Setter:
    """One flag that sets several parameters."""

    def put(params: Params, text: str) -> None:
        for setter in setters:
            setter(params, text)

    return put


def _one_of(values: Mapping[str, object]) -> Callable[[str], object]:
    def convert(text: str) -> object:
        if text not in values:
            raise ValueError(f"unknown value '{text}', expected one of: {', '.join(values)}")
        return values[text]

    return convert


def _enum(enumeration: str, prefix: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Converts to a member of one of the wheel's enumerations: names maps the flag's words to member names."""

    def convert(text: str) -> object:
        import xllamacpp

        member = _one_of(names)(text)
        return getattr(getattr(xllamacpp, enumeration), f"{prefix}{member}")

    return convert


def _kv_type(text: str) -> object:
    import xllamacpp

    if text not in KV_TYPES:
        raise ValueError(f"Unsupported cache type: {text}")
    return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{text.upper()}")


def _port(text: str) -> int:
    """llama-server cuts a port above 65535 to 16 bits in silence and listens elsewhere."""
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is not between 0 and 65535")
    return port


def _gpu_layers(text: str) -> int:
    return GPU_LAYERS[text] if text in GPU_LAYERS else int(text)


def _file_text(text: str) -> str:
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"error: failed to open file '{text}'") from None


def _keys(text: str) -> list[str]:
    keys = [line for line in _file_text(text).splitlines() if line]
    if not keys:
        raise ValueError(f"error: no API key in file '{text}'")
    return keys


def _shares(text: str) -> list[float]:
    """The wheel's list has a fixed length of 128 devices."""
    shares = [float(share) for share in text.replace("/", ",").split(",")]
    return (shares + [0.0] * 128)[:128]


def _no_device(params: Params, text: str) -> None:
    if text != "none":
        raise ValueError("only 'none' can be chosen here; CUDA_VISIBLE_DEVICES selects GPUs")
    params.n_gpu_layers = 0
    params.no_op_offload = True
    params.mmproj_use_gpu = False


def _sampling(name: str, mark: str, convert: Callable[[str], object]) -> Setter:
    """A sampling default. The mark tells llama.cpp that it was asked for, so that the model file's own does not win."""

    def put(params: Params, text: str) -> None:
        import xllamacpp

        setattr(params.sampling, name, convert(text))
        bit = getattr(xllamacpp.common_params_sampling_config, f"COMMON_PARAMS_SAMPLING_CONFIG_{mark}")
        params.sampling.user_sampling_config |= int(bit)

    return put


def _always(path: str, value: object) -> Setter:
    return _into(path, lambda _: value)


_FLASH = _enum("llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_", {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"})
_SPLIT = _enum(
    "llama_split_mode", "LLAMA_SPLIT_MODE_", {"none": "NONE", "layer": "LAYER", "row": "ROW", "tensor": "TENSOR"}
)

# Flags that take a value.
VALUES: dict[tuple[str, ...], Setter] = {
    ("-m", "--model"): _into("model.path"),
    ("-mm", "--mmproj"): _into("mmproj.path"),
    ("--host",): _into("hostnames", lambda text: text.split(",")),
    ("--port",): _into("port", _port),
    ("-c", "--ctx-size"): _into("n_ctx", int),
    ("-np", "--parallel"): _into("n_parallel", int),
    ("-n", "--predict", "--n-predict"): _into("n_predict", int),
    ("-ngl", "--gpu-layers", "--n-gpu-layers"): _into("n_gpu_layers", _gpu_layers),
    ("-dev", "--device"): _no_device,
    ("-ts", "--tensor-split"): _into("tensor_split", _shares),
    ("-sm", "--split-mode"): _into("split_mode", _SPLIT),
    ("-mg", "--main-gpu"): _into("main_gpu", int),
    ("-fit", "--fit"): _into("fit_params", _one_of(ON_OFF)),
    ("-t", "--threads"): _each(_into("cpuparams.n_threads", int), _into("cpuparams_batch.n_threads", int)),
    ("-tb", "--threads-batch"): _into("cpuparams_batch.n_threads", int),
    ("-ctk", "--cache-type-k"): _into("cache_type_k", _kv_type),
    ("-ctv", "--cache-type-v"): _into("cache_type_v", _kv_type),
    ("-fa", "--flash-attn"): _into("flash_attn_type", _FLASH),
    ("-b", "--batch-size"): _into("n_batch", int),
    ("-ub", "--ubatch-size"): _into("n_ubatch", int),
    ("-cram", "--cache-ram"): _into("cache_ram_mib", int),
    ("--image-max-tokens",): _into("image_max_tokens", int),
    ("-a", "--alias"): _into("model_alias", lambda text: set(text.split(","))),
    ("--sleep-idle-seconds",): _into("sleep_idle_seconds", int),
    ("--cors-origins",): _into("cors_origins"),
    ("--api-key-file",): _into("api_keys", _keys),
    ("--chat-template-file",): _into("chat_template", _file_text),
    ("-lv", "--verbosity", "--log-verbosity"): _into("verbosity", int),
    ("--temp", "--temperature"): _sampling("temp", "TEMP", float),
    ("--top-k",): _sampling("top_k", "TOP_K", int),
    ("--top-p",): _sampling("top_p", "TOP_P", float),
    ("--min-p",): _sampling("min_p", "MIN_P", float),
    ("-s", "--seed"): _into("sampling.seed", int),
}

# Flags that stand alone.
SWITCHES: dict[tuple[str, ...], Setter] = {
    ("--metrics",): _always("endpoint_metrics", True),
    ("--slots",): _always("endpoint_slots", True),
    ("--no-slots",): _always("endpoint_slots", False),
    ("--jinja",): _always("use_jinja", True),
    ("--no-jinja",): _always("use_jinja", False),
    ("--warmup",): _always("warmup", True),
    ("--no-warmup",): _always("warmup", False),
    ("--mmproj-offload",): _always("mmproj_use_gpu", True),
    ("--no-mmproj-offload",): _always("mmproj_use_gpu", False),
    ("-kvu", "--kv-unified"): _always("kv_unified", True),
    ("-no-kvu", "--no-kv-unified"): _always("kv_unified", False),
}

# Flags that also come through the environment, so that builds which do not know them are not put off.
ENVIRONMENT = {"LLAMA_ARG_FIT": "--fit", "LLAMA_ARG_CORS_ORIGINS": "--cors-origins"}


def _by_spelling(flags: Mapping[tuple[str, ...], Setter]) -> dict[str, Setter]:
    return {spelling: setter for spellings, setter in flags.items() for spelling in spellings}


def apply(argv: Sequence[str], params: Params) -> None:
    """Writes the flags of `argv` into `params`, left to right. Raises BadArgumentError in llama-server's words."""
    values, switches = _by_spelling(VALUES), _by_spelling(SWITCHES)
    words = iter(argv)
    for flag in words:
        if flag not in values and flag not in switches:
            raise BadArgumentError(f"error: invalid argument: {flag}")
        text = next(words, None) if flag in values else ""
        if text is None:
            raise BadArgumentError(f"error: expected value for argument {flag}")
        try:
            (values.get(flag) or switches[flag])(params, text)
        except (ValueError, OverflowError) as error:
            raise BadArgumentError(f'error while handling argument "{flag}": {error}') from None


def _version() -> str:
    from importlib.metadata import version

    return f"version: xllamacpp {version('xllamacpp')}"


def _parameters(argv: Sequence[str]) -> Params:
    """llama-server's own defaults, then the environment, then the flags."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.port = 8080
    params.n_parallel = -1
    inherited = [word for name, flag in ENVIRONMENT.items() if name in os.environ for word in (flag, os.environ[name])]
    apply([*inherited, *argv], params)
    if not params.model.path:
        raise BadArgumentError("error: --model is required")
    return params


def _refuse_missing_gpu(params: Params) -> None:
    """llama-server only warns and then computes on the CPU. Whoever asks for layers on a GPU wants them there."""
    import xllamacpp

    kinds = xllamacpp.ggml_backend_dev_type
    on_cpu = {kinds.GGML_BACKEND_DEVICE_TYPE_CPU, kinds.GGML_BACKEND_DEVICE_TYPE_ACCEL}
    wanted = params.n_gpu_layers not in (0, GPU_LAYERS["auto"])
    if wanted and all(device["type"] in on_cpu for device in xllamacpp.get_device_info()):
        raise BadArgumentError("error: no usable GPU found, --gpu-layers cannot be honoured by this build of xllamacpp")


def _serve(params: Params) -> int:
    """Serves until a signal ends the process, as it does while the model loads. Returns 1 when it could not start.

    No handler ends it in a gentler way: the wheel holds the interpreter lock until the model is loaded, and answers
    before it gives it back, so that one could not run from the first answer on. There is nothing to put in order at the
    end either, and dropping the server would wait for every client that has stopped reading its answer.
    """
    import xllamacpp

    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        print(f"llama-server: {error}", file=sys.stderr, flush=True)
        return 1
    while server:
        signal.pause()
    return 0


def main(argv: Sequence[str]) -> int:
    """Runs the server. Returns 0 after telling its version, 1 when it could not start."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        if "--version" in argv:
            print(_version(), file=sys.stderr)
            return 0
        params = _parameters(argv)
        _refuse_missing_gpu(params)
    except ImportError as error:
        print(f"error: the xllamacpp wheel cannot be used ({error}); pip install 'mscli[embedded]'", file=sys.stderr)
        return 1
    except BadArgumentError as error:
        print(error, file=sys.stderr)
        return 1
    return _serve(params)


if __name__ == "__main__":
    # An orderly exit: llama.cpp writes its log on a thread of its own, and the last lines say why a start failed.
    sys.exit(main(sys.argv[1:]))
