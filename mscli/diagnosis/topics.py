"""What an error line is about, for logs in which no sign is seen: a guess that is shown as one, never as a finding."""

from __future__ import annotations

from mscli.diagnosis.signature import Sign

_ERROR = r"\b\w*(?:Error|Exception)\b|\berror\b|\bfail(?:ed|ure|s)?\b|\bfatal\b|panicked|\bcannot\b|can't"
_ERROR += r"|\bunable\b|\binvalid\b"
_ERROR += (
    r"|not (?:supported|found|available|installed|allowed|set)|\bmissing\b|unsupported|\bunknown (?!\))|incompatible"
)

_TOLD = r"[\d.]+ [DI] "  # llama.cpp's lines that tell no error

# From what is rarely meant in passing to what often is.
_TOPICS = (
    ("tp_divisibility", 0.4, r"divisib|attention heads|num_heads|num_key_value_heads"),
    ("mistral_common", 0.4, r"mistral[_-]common|tekken(?!\.json)"),
    ("bitsandbytes", 0.4, r"bitsandbytes|\bbnb\b"),
    ("tools", 0.38, r"tool[ _-]?(?:call|choice|parser)|function[ _-]?call|\btools\b"),
    ("chat_request", 0.38, r"chat[ _-]?template|\broles?\b|\bmessages\b|jinja"),
    ("vision", 0.38, r"\bimages?\b|vision|mmproj|multi-?modal|\bclip\b|pixel_values"),
    ("shm", 0.38, r"/dev/shm|shared memory"),
    ("nccl", 0.38, r"\bnccl\b|process group|torch\.distributed|\brank\b|\bgloo\b"),
    ("p2p", 0.38, r"peer[- ]to[- ]peer|\bp2p\b|all[-_ ]?reduce"),
    ("cdi", 0.38, r"\bCDI\b"),
    ("mig", 0.38, r"\bMIG\b"),
    ("wsl", 0.38, r"\bWSL2?\b|dxcore|Windows Subsystem"),
    ("fabric_manager", 0.38, r"fabric|nvswitch|nvlink"),
    ("docker_gpu", 0.37, r"nvidia-container|nvidia runtime|container toolkit"),
    ("docker_permission", 0.36, r"docker\.sock|docker daemon"),
    ("gguf_unsupported", 0.36, r"\bgguf\b|\bggml\b.*(?:type|version)"),
    ("compute_capability", 0.36, r"capability|bf16|bfloat16|\bfp8\b|\bsm_?\d\d|flash[-_ ]?att"),
    ("torch_abi", 0.36, r"undefined symbol|\.so\b.*(?:open|load)|\bABI\b|torchvision::"),
    ("nvcc_jit", 0.36, r"\bnvcc\b|CUDA_HOME|ninja|\bptxas\b|\btriton\b.*compil|\bjit\b|flashinfer"),
    ("oom_kv", 0.36, r"kv[ _-]?cache|max[_ -]model[_ -]len|cache blocks|max_num_seqs"),
    ("gpu_busy", 0.3, r"other processes|in use by|busy"),
    ("oom_weights", 0.35, r"out[ _-]?of[ _-]?memory|\bOOM\b|\bVRAM\b|cudaMalloc|GPU memory"),
    ("host_ram", 0.33, r"\bRAM\b|system memory|\bmmap\b|allocat\w+ memory|bad_alloc"),
    ("tokenizer_format", 0.35, r"tokenizer|params\.json|consolidated|config[ _-]format"),
    ("unknown_arch", 0.35, r"architecture|model[ _]?type|model class"),
    ("corrupt_weights", 0.35, r"safetensors|checkpoint shard|\btensor '|magic|truncated file|corrupt"),
    ("hf_gated", 0.36, r"\b401\b|\b403\b|unauthorized|forbidden|access token"),
    (
        "network_proxy",
        0.34,
        r"proxy|\bSSL\b|\bTLS\b|certificate|\bDNS\b|resolve host|connect(?:ion)? .*(?:refused|timed|reset)",
    ),
    ("stalled_download", 0.33, r"download|resum\w+|\bxet\b"),
    ("model_not_found", 0.33, r"model .*(?:path|name|file)|no such file|repository|manifest"),
    ("driver_too_old", 0.33, r"driver version|\bdriver\b|\bPTX\b"),
    ("visible_devices", 0.33, r"CUDA_VISIBLE_DEVICES|device (?:id|index|ordinal)|number of (?:GPUs|devices)"),
    ("cuda_arch", 0.32, r"kernel image|arch_list|gpu architecture"),
    ("xid", 0.28, r"\bCUDA error\b|cudaError"),
    ("permissions", 0.34, r"permission|access denied|read-only"),
    ("python_version", 0.33, r"\bpython (?:version|3\.\d+)"),
    ("build", 0.33, r"\bcmake\b|\bcompil\w+|\bbuild(?:ing)?\b|\bcargo\b|\blinker\b"),
    ("cli_flags", 0.34, r"--[a-z][\w-]+|\bargument\b|\boption\b|\bflag\b|quantization method|pydantic"),
    ("python_env", 0.3, r"\bimport\b|\bmodule\b|\bpackage\b|\bpip\b"),
    ("sampling", 0.33, r"temperature|top_[pk]|\bmin_p\b|sampling"),
    ("context_truncated", 0.33, r"context (?:length|size|window)|truncat|too many tokens"),
)

TOPICS: tuple[Sign, ...] = tuple(
    Sign(
        code,
        rf"^(?!{_TOLD}|.*(?:\b(?:INFO|DEBUG|WARN(?:ING)?)\b|File \"))(?=.*(?:{_ERROR})).*?(?:{words})",
        strength=strength,
    )
    for code, strength, words in _TOPICS
)
