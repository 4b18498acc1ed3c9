"""What vLLM's log lines mean, as data: the signs by which a cause is recognised, in order of precedence.

"Engine core initialization failed", "WorkerProc failed to start", CalledProcessError and the like only wrap a cause
that stands further up; no sign names them. The order is that of a start: what stops an earlier step causes the rest.
"""

from __future__ import annotations

from mscli.diagnosis.signature import Sign
from mscli.engines.vllm.machine_signs import GPU, SOFTWARE

_LESS_KV = "Ask for less: a smaller --ctx, --kv fp8 or fewer --users; `mscli plan` shows what fits."
_LESS_WEIGHTS = "Take a smaller variant (FP8, W4A16) or more GPUs: `mscli plan` shows what fits."
_HELD = "See who holds GPU memory: `mscli gpus`. Stop it, or plan anew with what is free: `mscli up` again."
_LESS_RAM = "Free some RAM, or choose a smaller context (--ctx) or variant; `mscli plan` shows what fits."
_FLAGS = "Correct or remove it in the profile's `options`; `vllm serve --help=all` lists what this version takes."
_FORMAT = (
    "All three flags --tokenizer-mode, --config-format and --load-format mistral, or none: all three where the folder "
    "has params.json, consolidated*.safetensors and tekken.json."
)
_HUB = "Fetch the weights first: `mscli pull`; behind a proxy set HTTPS_PROXY."

_MEMORY = (
    Sign(
        "gpu_busy",
        r"Free memory on device \S* ?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired GPU",
        "only {free} of {total} GiB of GPU memory were free at the start: something else holds the rest",
        _HELD,
    ),
    Sign(
        "host_ram",
        r"less than desired CPU memory utilization|is less than requested memory for kv",
        "less RAM is free than vLLM was to take",
        _LESS_RAM,
    ),
    Sign(
        "oom_kv",
        r"max seq len \((?P<context>\d+)\)(?: is larger than the maximum number of tokens that can be stored in KV "
        r"cache \((?P<room>\d+)\))?",
        "the KV cache has no room for a context of {context} tokens",
        _LESS_KV,
    ),
    Sign("oom_kv", r"No available memory for the cache blocks", "nothing is left for the KV cache", _LESS_KV),
    Sign(
        "gpu_busy",
        r"out of memory.*Process (?P<pid>\d+) has (?P<held>[\d.]+) GiB memory in use.*this process has",
        "the GPU is full, and another process ({pid}) holds {held} GiB of it",
        _HELD,
        strength=0.6,
    ),
    Sign(
        "oom_kv",
        r"CUDA out of memory|CUDA error: out of memory",
        "the weights fit the GPU, what is computed beside them does not",
        _LESS_KV,
        beside=r"(?:Model loading|model weights) took",
    ),
    Sign(
        "oom_weights",
        r"CUDA out of memory|CUDA error: out of memory",
        "the weights do not fit the GPU",
        _LESS_WEIGHTS,
    ),
    Sign(
        "shm",
        r"/dev/shm.*(?:No space left|too small|not enough)|No space left on device.*(?:/dev/shm|shared memory)"
        r"|insufficient shared memory|unexpected bus error",
        "shared memory (/dev/shm) is full or too small",
        "Remove leftovers (`ls -l /dev/shm`); in a container give more: --ipc=host or --shm-size 8g.",
    ),
    Sign(
        "host_ram",
        r"oom-kill|Out of memory: Killed process|exit ?code:? -9|died with signal 9|\bKilled\b",
        "the kernel killed it: RAM ran out",
        _LESS_RAM,
    ),
    Sign("disk_full", r"No space left on device", "a disk is full", "`df -h` shows which; make room on it."),
)

_GPUS_TOGETHER = (
    Sign(
        "tp_divisibility",
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<gpus>\d+)\)",
        "{gpus} GPUs cannot share {heads} attention heads evenly",
        "Use 1, 2, 4 or 8 GPUs: --gpus.",
    ),
    Sign(
        "p2p",
        r"custom_all_?reduce.*(?:rror|failed)|peer access is not supported|P2P.*(?:not supported|failed|timed out)",
        "the GPUs cannot reach each other's memory directly",
        "Put `disable-custom-all-reduce: true` in the profile's `options`, and NCCL_P2P_DISABLE: 1 in its `env`.",
    ),
    Sign(
        "shm",
        r"NCCL error: unhandled system error|ncclSystemError",
        "NCCL was refused a resource by the system, most often room in /dev/shm",
        "Remove leftovers (`ls -l /dev/shm`); in a container give more: --ipc=host. NCCL_DEBUG=WARN tells more.",
        strength=0.5,
    ),
    Sign(
        "nccl",
        r"NCCL error|ncclInternalError|ncclUnhandledCudaError|ncclRemoteError|NCCL WARN",
        "the GPUs could not be connected (NCCL)",
        "Start again with NCCL_DEBUG: WARN in the profile's `env` and read the log; one GPU alone works without.",
    ),
)

_SETTINGS = (
    Sign(
        "port",
        r"bind on address \('(?P<host>[^']+)', (?P<port>\d+)\)",
        "the port {port} is taken, or the address {host} is not this machine's",
        "See who has it with `ss -ltnp`, or take another with --port.",
    ),
    Sign(
        "port",
        r"[Aa]ddress already in use",
        "its port is taken by somebody else",
        "See who has it with `ss -ltnp`, or take another with --port.",
    ),
    Sign("cli_flags", r"unrecognized arguments: (?P<flag>.+)", "this vLLM does not know {flag}", _FLAGS),
    Sign(
        "cli_flags",
        r"error: argument (?P<flag>-\S+): (?P<why>.+)",
        "this vLLM does not take the value given to {flag}: {why}",
        _FLAGS,
    ),
    Sign(
        "cli_flags",
        r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len "
        r"\(\D*(?P<limit>\d+)",
        "a context of {asked} tokens is beyond the model's {limit}",
        "Ask for at most that: --ctx {limit}",
    ),
    Sign(
        "cli_flags",
        r"[Uu]nknown quantization method: (?P<value>\S+)\. Must|Load format `(?P<format>\w+)` is not supported"
        r"|invalid tool call parser: (?P<tool>\S+)|Reasoning parser '(?P<reasoning>[^']+)' not found",
        "this vLLM does not know {value}{format}{tool}{reasoning}",
        _FLAGS,
    ),
    Sign(
        "cli_flags",
        r"error: ambiguous option: (?P<flag>\S+)|Input should be (?P<why>.+?) \[type=|(?P<file>\S+) appears path-like",
        "a flag's value is not what this vLLM takes: {flag}{why}{file}",
        _FLAGS,
    ),
    Sign(
        "cli_flags",
        r"max_num_batched_tokens \((?P<batch>\d+)\) is smaller than max_model_len",
        "max-num-batched-tokens ({batch}) is smaller than the context",
        _FLAGS,
    ),
    Sign(
        "tools",
        r"requires --enable-auto-tool-choice|--enable-auto-tool-choice requires --tool-call-parser",
        "tool calling is not set up",
        "Both flags belong together: --enable-auto-tool-choice and --tool-call-parser mistral.",
    ),
    Sign(
        "tokenizer_format",
        r"Found 0 files matching the pattern: .*tekken|No tokenizer file found"
        r"|'MistralTokenizer' object has no attribute|Failed to load mistral 'params\.json'|Expected to decode 1 token"
        r"|Couldn't instantiate the backend tokenizer|Tokenizer class \S+ does not exist"
        r"|Unrecognized model in \S+\. Should have a `model_type`",
        "flags and files of Mistral's and of Hugging Face's format are mixed up",
        _FORMAT,
    ),
    Sign(
        "vision",
        r"You set image=(?P<limit>\d+) .*but passed (?P<sent>\d+) image"
        r"|At most (?P<most>\d+) image\(s\) may be provided",
        "a request holds more images than the {limit}{most} that were planned",
        "Plan more when starting: --images.",
    ),
    Sign(
        "vision",
        r"is not a multimodal model",
        "an image was sent to a model that reads text only",
        "Use a profile that sees: `mscli profiles`.",
    ),
    Sign(
        "chat_request",
        r"roles must(?:\s+alternate|\s*$)|Expected last role|Unexpected role",
        "the messages of a request are not in the order that the model's template wants",
        "User and assistant take turns after one optional system message: join messages of one role.",
    ),
)

_FILES = (
    Sign(
        "hf_gated",
        r"GatedRepoError|[Cc]annot access gated repo|401 Client Error|403 Client Error",
        "the repository is only for those who accepted its terms",
        "Accept them on its page, then `hf auth login`.",
    ),
    Sign("hf_rate_limit", r"429 Client Error|Too Many Requests", "the Hub asks to wait", "Wait, or: hf auth login"),
    Sign(
        "offline",
        r"LocalEntryNotFoundError|appropriate cached snapshot folder|outgoing traffic has been disabled"
        r"|OfflineModeIsEnabled",
        "a file is not in the cache, and nothing may be fetched",
        "Fetch the weights first: mscli pull",
    ),
    Sign(
        "network_proxy",
        r"couldn't connect to 'https://huggingface\.co'|Max retries exceeded|Temporary failure in name resolution"
        r"|CERTIFICATE_VERIFY_FAILED",
        "the Hub cannot be reached",
        _HUB,
    ),
    Sign(
        "corrupt_weights",
        r"SafetensorError|deserializing header|MetadataIncompleteBuffer|invalid load key|HeaderTooLarge",
        "a weight file is cut off or damaged",
        "`mscli weights verify` finds it and fetches it anew.",
    ),
    Sign(
        "model_not_found",
        r"Repo id must be in the form .*: '(?P<path>[^']+)'|(?P<name>\S+) is not a local folder and is not a valid"
        r"|does not appear to have a file named (?P<file>\S+)|Cannot find any model weights"
        r"|Invalid repository ID or local directory",
        "there is no such model here: {path}{name}{file}",
        "Start again, so that the weights are fetched; `mscli profiles` tells which belong there.",
    ),
    Sign(
        "container_user",
        r"Permission denied: '(?P<path>[^']*/\.(?:triton|cache|config|local)[^']*)'|uid not found|unknown userid",
        "its user has no home that it may write: {path}",
        "Run it as a user with a home, or let HOME, HF_HOME and TRITON_CACHE_DIR name folders that it may write.",
    ),
    Sign(
        "permissions",
        r"Permission denied: '(?P<path>[^']+)'",
        "this user may not use {path}",
        "`namei -l {path}` shows whose it and every folder above it are.",
    ),
    # vLLM warns with these words in every log of a machine with a low limit.
    Sign(
        "ulimit",
        r"(?<!Errno 24\] )Too many open files(?!`)|OSError: \[Errno 24\] Too many open files(?!`)",
        "the limit of open files was reached",
        "Raise it: ulimit -n 65536",
    ),
)

_SILENCE = (
    Sign(
        "p2p",
        r"vLLM is using nccl",
        "it went silent while the GPUs were being connected: direct access between these cards hangs",
        "Put `disable-custom-all-reduce: true` in the profile's `options`, and NCCL_P2P_DISABLE: 1 in its `env`.",
        unless=r"Starting to load model|(?:Model loading|weights) took",
        strength=0.4,
    ),
)

SIGNS = (*GPU, *SOFTWARE, *_MEMORY, *_GPUS_TOGETHER, *_SETTINGS, *_FILES, *_SILENCE)
