"""What the log of Transformers means, as data: the signs by which a cause is recognised, in order of precedence."""

from __future__ import annotations

from mscli.diagnosis.signature import Sign
from mscli.engines.library_signs import DRIVER, HOST, LESS_KV, LESS_WEIGHTS, SERVER, WEIGHTS

_NEWER = "Install a newer one: mscli engines install transformers"
_ANEW = "Install torch and what builds on it anew, of one kind: mscli engines install transformers"
_OOM = r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY"
_LOADED = r"placed weights: "

_LIBRARIES = (
    Sign(
        "transformers_old",
        r"model type `(?P<type>\w+)` but Transformers does not recognize|KeyError: '(?P<key>mistral3)'"
        r"|cannot import name 'Mistral3\w*'",
        "this Transformers is too old for the model ({type}{key})",
        _NEWER,
    ),
    Sign(
        "transformers_api",
        r"Unrecognized configuration class|unexpected keyword argument 'load_in_[48]bit'"
        r"|TypeError: (?P<type>\w+) isn't supported yet|has no attribute 'apply_chat_template'",
        "the wrong loader is used for this kind of model",
        "Models that see need AutoModelForImageTextToText, and 4 bits a BitsAndBytesConfig: `mscli up` does both.",
    ),
    Sign("backend_no_gpu_build", r"Torch not compiled with CUDA enabled", "this torch is built for CPUs only", _ANEW),
    Sign(
        "bitsandbytes",
        r"CUDA SETUP: (?:Required library|CUDA Setup failed)|libbitsandbytes_\w+\.so"
        r"|bitsandbytes.* was not compiled with|metadata was found for bitsandbytes"
        r"|[Uu]sing `?bitsandbytes`?.* requires",
        "bitsandbytes is missing, or cannot use this CUDA or GPU",
        "Install a newer one where torch is: pip install -U bitsandbytes",
    ),
    Sign(
        "oom_weights",
        r"Some modules are dispatched on the CPU or the disk",
        "the quantised weights do not fit on the GPUs",
        LESS_WEIGHTS,
    ),
    Sign(
        "mistral_common",
        r"No module named 'mistral_common'|mistral-common.*(?:not installed|required)"
        r"|Couldn't instantiate the backend tokenizer",
        "the model comes with tekken.json alone, which needs mistral-common",
        "Install it where torch is: pip install mistral-common",
    ),
    Sign(
        "torch_abi",
        r"operator torchvision::\w+ does not exist|undefined symbol: |libtorch\S*: cannot open|"
        r"libcud\w+\.so\.\d+: cannot open",
        "torch and a library built on it do not belong together",
        _ANEW,
    ),
    Sign(
        "python_env",
        r"requires the (?P<library>\w+) library|No module named '(?P<module>[^']+)'"
        r"|Could not import module '(?P<lazy>[^']+)'",
        "a library is missing: {library}{module}{lazy}",
        _ANEW,
    ),
)

_MEMORY = (
    Sign("oom_kv", _OOM, "the weights fit, but a request's KV cache does not", LESS_KV, beside=_LOADED),
    Sign("oom_weights", _OOM, "the weights do not fit into the GPU's free memory", LESS_WEIGHTS),
)

_REQUESTS = (
    Sign(
        "chat_request",
        r"roles must alternate|the chat template does not take these messages",
        "the messages do not fit the model's chat template",
        "Let user and assistant take turns, the system first.",
    ),
    Sign(
        "vision",
        r"images were sent, and the plan is for",
        "more images were sent than were planned",
        "Plan them when starting: --images.",
    ),
)

# The stalled pull before the killed process: both end in "Killed", the first says what it was at.
SIGNS = (*SERVER, *DRIVER, *_LIBRARIES, *WEIGHTS, *_MEMORY, *HOST, *_REQUESTS)
