"""Why llama-server did not start: its log, read by mechanism, gives a code of the closed cause list.

The last line of such a log ("exiting due to ...") only says that there was an error. The signs below look for the line
that states which, in order of precedence: what names its cause most exactly comes first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mscli.diagnosis.signature import Sign, first
from mscli.engines.engine import Cause

_UNKNOWN_LINES = 8


_LESS_CONTEXT = "Ask for less: a smaller --ctx, --kv q8_0, or fewer --users; `mscli plan` shows what fits."
_LESS_WEIGHTS = "See who holds GPU memory with `mscli gpus`, or choose a smaller variant: `mscli plan` shows what fits."
_LESS_RAM = "Free some RAM, or choose a smaller context (--ctx) or variant; `mscli plan` shows what fits."
_NEW_DRIVER = (
    "Update the NVIDIA driver, or install a llama.cpp that is built for an older CUDA; `mscli gpus` shows both."
)
_FETCH_AGAIN = "Remove the file and start again, so that it is fetched anew."
_FLAGS = "Correct or remove it in the profile's `options`; `llama-server --help` lists what this version takes."

SIGNS = (
    Sign(
        "port",
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)",
        "it could not listen on {host}:{port}: the port is taken, or the address is not this machine's",
        "See who has it with `ss -ltnp 'sport = :{port}'`, or take another with --port.",
    ),
    Sign(
        "engine_missing",
        r"the xllamacpp wheel cannot be used \((?P<why>.*)\)",
        "the embedded server is not usable: {why}",
        "pip install --force-reinstall 'mscli[embedded]'",
    ),
    Sign(
        "nvml_not_found",
        r"(?P<library>libcuda\.so\S*): cannot open shared object file",
        "the driver's {library} was not found by this process",
        "Install the NVIDIA driver; in a container start it with --gpus all.",
    ),
    Sign(
        "engine_missing",
        r"error while loading shared libraries: (?P<library>[^:\s]+)",
        "llama-server's library {library} is missing",
        "Install llama.cpp again with its CUDA libraries, or take it off PATH to use the embedded server.",
    ),
    Sign(
        "cli_flags",
        r"error: invalid argument: (?P<flag>\S+)",
        "this llama-server does not know the flag {flag}",
        _FLAGS,
    ),
    Sign(
        "cli_flags",
        r"error while handling argument \"(?P<flag>[^\"]+)\": (?P<why>.+)",
        "this llama-server does not take the value given to {flag}: {why}",
        _FLAGS,
    ),
    Sign(
        "cli_flags",
        r"V cache quantization requires flash_attn|quantized V cache requires flash_attn",
        "a KV cache in less than 16 bits needs flash attention, which is switched off",
        "Take `flash-attn` out of the profile's `options`, or ask for --kv f16.",
    ),
    Sign("cli_flags", r"error: expected value for argument:? (?P<flag>\S+)", "{flag} needs a value", _FLAGS),
    Sign(
        "vision",
        r"mismatch between text model \(n_embd = (?P<text>\d+)\) and mmproj \(n_embd = (?P<projector>\d+)\)",
        "the image projector belongs to another model: it writes {projector} numbers per token, the model reads {text}",
        "Take the projector (mmproj) from the same repository as the model.",
    ),
    Sign(
        "vision",
        r"Failed to load CLIP model from (?P<path>.+)|failed to load multimodal model, '(?P<other>[^']+)'",
        "the image projector cannot be loaded: {path}{other}",
        "Fetch the projector again or take it from the model's repository; text only works with --images 0.",
    ),
    Sign(
        "permissions",
        r"failed to open (?:GGUF file )?'?(?P<path>[^']+?)'? \(Permission denied\)",
        "this user may not read {path}",
        "Let this user read the file and every folder above it: `namei -l {path}` shows the rights.",
    ),
    Sign(
        "model_not_found",
        r"failed to open (?:GGUF file )?'?(?P<path>[^']+?)'? \(No such file or directory\)",
        "there is no file {path}",
        "Start again, so that the weights are fetched; `mscli profiles` tells which file belongs there.",
    ),
    Sign(
        "corrupt_weights",
        r"tensor '(?P<tensor>[^']+)' data is not within the file bounds",
        "the model file is cut off: {tensor} lies beyond its end",
        _FETCH_AGAIN,
    ),
    Sign(
        "corrupt_weights",
        r"invalid magic characters: '(?P<magic>[^']*)'",
        "the model file is no GGUF: it begins with '{magic}'",
        f"{_FETCH_AGAIN} A file that begins with 'vers' is a Git LFS pointer.",
    ),
    Sign(
        "gguf_unsupported",
        r"GGUF file is version \d+ but|unsupported GGUF version|unknown pre-tokenizer type|missing tensor '"
        r"|wrong number of tensors|invalid ggml type|has invalid ggml type|key not found in model|has wrong shape",
        "this llama.cpp cannot load this GGUF file",
        "Install a newer llama.cpp, or take another GGUF of the model.",
    ),
    Sign(
        "corrupt_weights",
        r"gguf_init_from_\w+: failed to read|unexpectedly reached end of file|model is corrupted or incomplete"
        r"|failed to read magic|tensor '[^']+' has invalid data",
        "the model file is damaged or incomplete",
        _FETCH_AGAIN,
    ),
    Sign(
        "unknown_arch",
        r"unknown model architecture: '(?P<architecture>[^']*)'",
        "this llama.cpp does not know the architecture {architecture}",
        "Install a newer llama.cpp, or take a GGUF made for llama.cpp: Ollama's own files may not be.",
    ),
    Sign(
        "driver_too_old",
        r"CUDA driver version is insufficient|PTX was compiled with an unsupported toolchain",
        "the NVIDIA driver is too old for the CUDA that this llama.cpp was built with",
        _NEW_DRIVER,
    ),
    Sign(
        "driver_vs_compat",
        r"unsupported display driver / cuda driver combination",
        "another libcuda (cuda-compat) stands before the driver's own",
        "Take cuda-compat out of LD_LIBRARY_PATH: `ldconfig -p | grep libcuda` shows which is found.",
    ),
    Sign(
        "fabric_manager",
        r"failed to initialize CUDA: system not yet initialized",
        "the NVSwitch fabric is not up",
        "sudo systemctl restart nvidia-fabricmanager",
    ),
    Sign(
        "suspend",
        r"failed to initialize CUDA: unknown error",
        "the driver lost its GPU context, as after a suspend",
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm",
    ),
    Sign(
        "visible_devices",
        r"no CUDA-capable device is detected|invalid device ordinal",
        "CUDA shows the engine none of the planned GPUs",
        "Compare `mscli gpus` with CUDA_VISIBLE_DEVICES in this environment and in the profile's `env`.",
    ),
    Sign(
        "cuda_arch",
        r"no kernel image is available|has no device code compatible with CUDA arch|not compiled for any of the archs",
        "this llama.cpp holds no code for this GPU's architecture",
        "Install a llama.cpp that is built for this GPU's compute capability; `mscli gpus` shows it.",
    ),
    Sign(
        "ecc",
        r"uncorrectable ECC error",
        "the GPU reports uncorrectable memory errors",
        "Reset or replace it: `mscli gpus` shows which.",
    ),
    Sign(
        "oom_kv",
        r"failed to allocate (?:the )?buffer for kv cache",
        "the weights fit, but the KV cache for this context does not",
        _LESS_CONTEXT,
    ),
    Sign(
        "host_ram",
        r"unable to allocate (?P<buffer>CPU\S*|\S*_Host) buffer",
        "the weights do not fit into this machine's free RAM",
        _LESS_RAM,
    ),
    Sign(
        "oom_weights",
        r"unable to allocate (?P<buffer>\S+) buffer|cudaMalloc failed: out of memory|CUDA error: out of memory",
        "the weights or the compute buffer do not fit into the GPU's free memory",
        _LESS_WEIGHTS,
    ),
    Sign(
        "host_ram",
        r"ggml_aligned_malloc: insufficient memory|std::bad_alloc|Cannot allocate memory"
        r"|failed to allocate compute (?:pp |tg )?buffers|ggml_backend_cpu_buffer_type_alloc_buffer: failed",
        "this machine has not enough free RAM",
        _LESS_RAM,
    ),
    Sign(
        "ulimit",
        r"Too many open files|Resource temporarily unavailable|pthread_create failed",
        "a process limit was reached",
        "Raise it in this shell and start again: `ulimit -n 65536; ulimit -u unlimited`.",
    ),
    Sign(
        "disk_full", r"No space left on device", "there is no space left on the disk", "Make room: `df -h` shows where."
    ),
    Sign(
        "vision",
        r"image input is not supported",
        "an image was sent to a server that has no image projector",
        "Plan images when starting (--images 1), with a model that sees.",
    ),
    Sign(
        "tools",
        r"tools param requires --jinja",
        "tools were sent to a server without Jinja templates",
        "Take `no-jinja` out of the profile's `options`.",
    ),
    Sign(
        "tools",
        r"[Ff]ailed to parse (?:the )?chat template|chat template is not supported",
        "the chat template cannot be used",
        "Correct `chat-template-file` in the profile's `options`, or leave it out to use the model's own.",
    ),
    Sign(
        "backend_no_gpu_build",
        r"no usable GPU found|not compiled with GPU offload support",
        "this llama.cpp has no GPU code, or finds no GPU it can use",
        "Put a llama-server with CUDA on PATH: the wheel of PyPI computes on the CPU only.",
    ),
)

_ERROR_LINE = re.compile(r"^[\d.]+ E |\berror\b|\bfailed\b", re.IGNORECASE)
_WRAPPER = re.compile(r"exiting due to|please check the input params|cleaning up before exit")

# What an exit status alone tells: negative is the signal that killed it.
_BY_STATUS: Mapping[int, tuple[str, str, str]] = {
    -9: (
        "host_ram",
        "it was killed (signal 9), which is what the kernel does when RAM runs out",
        f"`dmesg | grep -i 'out of memory'` tells whether it was. {_LESS_RAM}",
    ),
    -4: (
        "build",
        "this CPU lacks an instruction that this llama.cpp was built for",
        "Install a llama.cpp that is built for this CPU; `mscli gpus` shows its flags.",
    ),
    -15: ("unknown", "something else stopped it (signal 15) before it was ready", "Start it again."),
}


def cause(log: str, exit_status: int | None) -> Cause:
    """The cause of a failed start, as `Engine.diagnose` describes it."""
    lines = log.splitlines()
    if seen := first(SIGNS, lines):
        return Cause(seen.sign.code, seen.summary, seen.remedy, _around(lines, seen.line))
    return _without_sign(lines, exit_status)


def _around(lines: list[str], number: int) -> tuple[str, ...]:
    """The telling line with the error lines just before it, and the one after it."""
    before = [line for line in lines[:number] if _ERROR_LINE.search(line)][-3:]
    after = [line for line in lines[number + 1 : number + 3] if _ERROR_LINE.search(line) and not _WRAPPER.search(line)]
    return tuple(line.strip() for line in [*before, lines[number], *after])


def _without_sign(lines: list[str], exit_status: int | None) -> Cause:
    errors = [line.strip() for line in lines if _ERROR_LINE.search(line) and not _WRAPPER.search(line)]
    evidence = tuple(errors[:_UNKNOWN_LINES] or [line.strip() for line in lines if line.strip()][-_UNKNOWN_LINES:])
    if exit_status is None:
        return Cause("unknown", "it was still loading", "Give it longer with --timeout.", evidence)
    if exit_status in _BY_STATUS:
        return Cause(*_BY_STATUS[exit_status], evidence)
    return Cause("unknown", "its log does not say why", "Read the whole log.", evidence)
