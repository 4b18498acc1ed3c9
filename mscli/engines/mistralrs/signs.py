"""What the log of mistral.rs means, as data: the signs by which a cause is recognised, in order of precedence.

Its panics end in "RecvError" or "Response channel closed", which only says that the engine's thread is gone.
"""

from __future__ import annotations

from mscli.diagnosis.signature import Sign
from mscli.engines.library_signs import DRIVER, HOST, LESS_KV, LESS_WEIGHTS, SERVER, WEIGHTS

_OOM = r"CUDA_ERROR_OUT_OF_MEMORY|DriverError\(.*out of memory|out of memory"
# Said once the weights are in place, whichever version it is.
_LOADED = r"(?i)model loaded|Serving on http|Server listening on|listening on http|Beginning dummy run"

_ENGINE = (
    Sign(
        "tokenizer_format",
        r"missing field `hidden_size`",
        "it took the folder for one of Mistral's own format",
        "Take params.json out of the folder it is given.",
    ),
    Sign(
        "vision",
        r"invalid type: map, expected usize",
        "preprocessor_config.json holds what this version cannot read",
        "Start it with `mscli up`, which corrects that file, or plan no images (--images 0).",
    ),
    Sign(
        "unknown_arch",
        r"Unsupported (?:Hugging Face )?Transformers|[Uu]nknown (?:model )?architecture|Got unknown arch",
        "this mistral.rs does not know the model's architecture",
        "Install a newer mistral.rs.",
    ),
    Sign(
        "backend_no_gpu_build",
        r"not compiled with CUDA|CUDA support not compiled|`cuda` feature",
        "this mistral.rs is built for CPUs only",
        "Install it with the feature `cuda`.",
    ),
    Sign(
        "engine_missing",
        r"No module named 'mistralrs'",
        "the wheel of mistral.rs is not in this environment",
        "pip install mistralrs, or put mistral.rs's `mistralrs` on PATH.",
    ),
    Sign(
        "version_backend_old",
        r"unexpected keyword argument '(?P<name>memory_goal)'|got an unexpected keyword argument",
        "this wheel of mistral.rs is too old",
        "pip install -U mistralrs",
    ),
    Sign(
        "tools",
        r"(?i)jinja.*(?:No such file|not found)|failed to parse.*template",
        "the chat template cannot be used",
        "Remove `jinja-explicit` from the profile's `options`.",
    ),
)

_FILES = (
    Sign(
        "corrupt_weights",
        r"reading checkpoint tensor inventory",
        "the weight files cannot be read",
        "Fetch them again: `mscli pull` checks every file and fetches what is wrong anew.",
    ),
)

_REQUESTS = (
    Sign(
        "chat_request",
        r"[Cc]onversation roles must alternate|messages have the roles",
        "the messages do not fit the chat template",
        "Let user and assistant take turns, the system first.",
    ),
)

_MEMORY = (
    Sign("oom_kv", _OOM, "the weights fit, but the KV cache does not", LESS_KV, beside=_LOADED),
    Sign("oom_weights", _OOM, "the weights do not fit into the GPU's free memory", LESS_WEIGHTS),
)

SIGNS = (*SERVER, *DRIVER, *_ENGINE, *_REQUESTS, *WEIGHTS, *_FILES, *_MEMORY, *HOST)
