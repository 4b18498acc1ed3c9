"""Signs of what a GPU cannot do, of memory that does not suffice, and of several GPUs that do not work together."""

from __future__ import annotations

from mscli.doctor.signs import HINT, LIKELY, STATED, STRONG, TRACE, cuda, sign

_SERVED = (
    r"Model loaded\.|Serving on|Application startup complete|server is listening|Uvicorn running|all slots are idle"
)

_HARDWARE = (
    sign(
        "compute_capability",
        STATED,
        r"only supported on (?:GPUs|CUDA devices|devices) with compute capability",
        r"FlashAttention only supports (?:Ampere|Hopper|Turing)",
        r"compute capability (?:of )?(?:at least|>=|must be|\S+ or (?:higher|above|newer))",
        r"(?:requires?|needs?) (?:a )?(?:GPU|device|CUDA)?.{0,40}?(?:compute )?capability",
        r"Min(?:imum)?[ _]capability\W{0,4}\d+|does not support weight_bits",
        r"fp8e4\w+ not supported in this architecture|type fp8\w+ not supported",
        r"requires \.target sm_\d+ or higher",
        r"too old\b.*minimum cuda capability|CUDA GPU is too old",
        r"(?:GPU|device|hardware)\S* does not support (?:bf16|bfloat16|fp8|float8)",
        r"(?:bf16|bfloat16|fp8|float8)\b.*(?:not supported|unsupported)\b.*(?:GPU|device|hardware|architecture)",
        r"(?:GPU|setup|device|card)\S* (?:doesn'?t|does not|cannot) (?:support|use|run) (?:\S+ )?(?:bf16|bfloat16"
        r"|fp8|float8)",
        r"FlashInfer requires (?:GPUs? with )?sm",
        r"FlashMLA.*only supported on",
        r"(?:Volta|Pascal|Maxwell|Kepler|Turing)\b.{0,60}(?:not supported|unsupported|no longer supported)",
        unless=r"Cannot use FlashAttention-2 backend for Volta|is not compatible with the current PyTorch",
    ),
    sign(
        "compute_capability",
        HINT,
        r"LLVM ERROR: Cannot select|PTX assembly aborted due to errors",
        r"Cannot use FlashAttention-\d.*(?:Error|fail)",
        r"skipping CUDA device .*compute capability",
        r"operation not supported on this (?:GPU|device|architecture)",
    ),
    sign(
        "cuda_arch",
        STATED,
        r"is not compatible with the current PyTorch installation",
        r"no kernel image is available",
        r"CUDA_?ERROR_?NO_?BINARY_?FOR_?GPU|cudaErrorNoKernelImageForDevice",
        cuda(209),
        r"no device code compatible with CUDA arch",
        r"not compiled for any of the archs",
        r"ggml was not compiled with.*(?:arch|CC)",
        r"Arch conditional MMA instruction used without targeting",
        r"No compiled \S+ for (?:a |this )?(?:compute|CUDA|device)",
        r"(?:sm_|compute_)\d+a? (?:is )?not (?:in|among|supported by|a supported)",
        r"Value 'sm_\w+' is not defined for option 'gpu-name'",
        r"not in compiled architectures",
    ),
    sign("cuda_arch", LIKELY, r"invalid device function|cudaErrorInvalidDeviceFunction", cuda(98)),
    sign("cuda_arch", HINT, r"device kernel image is invalid|named symbol not found", unless=r"bitsandbytes|ops\.cu"),
    sign("compute_capability", 0.45, r"CUDA_ERROR_INVALID_PTX.*bf16|PTX JIT compilation failed.*bf16"),
    sign("cuda_arch", TRACE, r"Unsupported gpu architecture|too old\b.*minimum cuda capability"),
)

_MEMORY = (
    sign(
        "oom_weights",
        STRONG,
        r"unable to allocate (?:CUDA|ROCm|Vulkan)\S* buffer",
        r"dispatched on the CPU or the disk",
        r"(?:model|weights) (?:does|do) not fit (?:on|in|into)",
        r"(?:insufficient|not enough) (?:free )?(?:GPU|VRAM|video|device) memory",
        r"(?:model|weights).* (?:larger|more) than (?:the )?(?:available|free) (?:GPU|VRAM|video|device) memory",
    ),
    sign(
        "oom_weights",
        STRONG,
        r"CUDA out of memory|OutOfMemoryError",
        beside=r"load_(?:model|weights)|from_pretrained|Loading (?:checkpoint|safetensors)|create_weights|_load_state",
        unless=_SERVED,
    ),
    sign(
        "oom_weights",
        LIKELY,
        r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError",
        r"cudaMalloc failed: out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY",
        r"cudaErrorMemoryAllocation",
        r"cuMem(?:Create|Alloc)\S*.*out of memory",
        r"failed to allocate (?:CUDA|ROCm)\d* buffer",
        r"ErrorOutOfDeviceMemory|HIP out of memory|hipErrorOutOfMemory",
        r"failed to fit params to free device memory",
        cuda(2),
    ),
    sign("oom_weights", 0.45, r"CUBLAS_STATUS_ALLOC_FAILED", r"No available memory for the cache blocks"),
    sign("oom_weights", TRACE, r"CUBLAS_STATUS_NOT_INITIALIZED", r"failed to allocate compute (?:pp |tg )?buffers"),
    sign(
        "oom_kv",
        STATED,
        r"larger than the maximum number of tokens that can be stored in KV cache",
        r"KV cache is needed, which is larger than the available",
        r"failed to allocate (?:the )?(?:buffer for )?kv[ _-]?cache",
        r"estimated maximum model length is",
        r"# GPU blocks: 0\b",
        r"\bk(?:ey/)?v[ _-]?cache\b.{0,80}(?:out of memory|does not fit|not enough|insufficient|cannot be allocated)",
        r"(?:not enough|insufficient|no) (?:memory|space|room|blocks)\b.{0,60}\bKV[ _-]?cache",
        r"failed to (?:initialize|create) the context: failed to",
        r"(?:not enough|insufficient|cannot allocate).{0,40}(?:cache|paged attention) blocks",
        unless=r"Sequence group .* preempted by",
    ),
    sign("oom_kv", 0.65, r"No available memory for the cache blocks"),
    sign(
        "oom_kv",
        0.75,
        r"CUDA out of memory occurred when warming up sampler",
        r"Please try lowering .?max_num_seqs",
        r"failed to create context with model",
    ),
    sign(
        "oom_kv",
        STRONG,
        r"out of memory|CUDA_ERROR_OUT_OF_MEMORY",
        beside=_SERVED,
        unless=r"Killed process|oom-kill",
    ),
    sign(
        "oom_kv", HINT, r"out of memory", beside=r"capture_model|cuda ?graphs?|profile_run|determine_available|kv_cache"
    ),
    sign("oom_kv", TRACE, r"not enough KV cache space"),
    sign(
        "gpu_busy",
        STATED,
        r"Free memory on device .* is less than desired GPU memory utilization",
        r"Error in memory profiling",
        r"other processes sharing the same container release GPU memory",
        r"GPU memory (?:is )?(?:used|held|occupied|taken) by (?:an)?other",
    ),
    sign("gpu_busy", STRONG, r"Process \d+ has (?:[2-9]|\d\d+)[\d.]* GiB memory in use"),
    sign(
        "gpu_busy",
        0.75,
        r"CUDA-capable device\(s\) is/are busy or unavailable",
        r"CUDA_ERROR_DEVICE_UNAVAILABLE|cudaErrorDevicesUnavailable",
        r"all CUDA-capable devices are busy",
        cuda(46),
    ),
    sign(
        "host_ram",
        STATED,
        r"\boom[-_]kill",
        r"Out of memory: Kill",
        r"\bOOMKilled\b",
        r"requires more system memory",
        r"DefaultCPUAllocator: (?:not enough|can'?t allocate) memory",
        r"paging file is too small",
        r"ray\S*OutOfMemoryError|node running low on memory",
        r"Too large swap space|insufficient memory \(attempted",
        r"systemd-oomd\S* .*[Kk]ill",
        r"(?:insufficient|not enough) (?:system|host|CPU) (?:memory|RAM)",
    ),
    sign(
        "host_ram",
        STRONG,
        r"signal: killed|died with <Signals\.SIGKILL|code=killed, status=9",
        r"std::bad_alloc|\bMemoryError\b",
        r"unable to allocate (?:CPU\S*|\S*_Host) buffer|failed to allocate CPU\S* buffer",
        r"(?:exit(?:ed)?|return(?:ed)?|status).{0,20}\b(?:code|status)?\W{0,3}137\b",
        r"memory allocation of \d+ bytes failed",
    ),
    sign("host_ram", LIKELY, r"Cannot allocate memory|os error 12\b|Errno 12\b", unless=r"failed to mlock|/dev/shm"),
    sign("host_ram", 0.6, r"^(?:.{0,60}: line \d+: +\d+ )?Killed", r"exit(?:code|ed)?\W{1,12}-9\b|SIGKILL|signal 9\b"),
    sign("host_ram", TRACE, r"failed to allocate compute (?:pp |tg )?buffers"),
    sign(
        "shm",
        STATED,
        r"insufficient shared memory|[Ii]ncreas\w+ .*shared memory|(?:increas|try|rais|need|set)\w* "
        r".{0,40}--?shm[-_]size",
        r"shared memory segment /dev/shm",
        r"/dev/shm\S*.*(?:No space|full|too small|cannot|failed|exceed)",
        r"(?:No space left|ENOSPC|Cannot allocate|failed).*/dev/shm",
        r"posix_fallocate failed|unable to (?:mmap|open|allocate) .*shared memory",
        r"(?:shared memory|shm) .*(?:too small|exhausted|No space left)",
        r"shm_open\b.*(?:failed|No space|error)",
        unless=r"leaked shared_memory objects to clean up",
    ),
    sign("shm", LIKELY, r"\bBus error\b|SIGBUS|signal 7\b"),
    sign(
        "shm", 0.55, r"NCCL error:? unhandled system error", r"ncclSystemError", unless=r"[Ss]ocket|ibv_|bind|connect"
    ),
    sign("shm", HINT, r"No such file or directory: '/(?:psm|nccl|sem\.mp|torch)[_-]\w+"),
)

_SEVERAL = (
    sign(
        "tp_divisibility",
        STATED,
        r"must be (?:evenly )?(?:divisible by|a multiple of) (?:the )?(?:tensor|tp|world|number of (?:GPUs|shards"
        r"|ranks)|num_shards)",
        r"(?:heads?|hidden|vocab|size|dim\w*)\b.{0,80} not (?:evenly )?divisible by .{0,30}(?:tensor|tp|world"
        r"|parallel|GPU|rank|shard)",
        r"too large tensor parallel size",
        r"(?:tensor|tp|world)[ _-]?(?:parallel|size|world)\S*.{0,60}(?:must|does not|should|cannot).{0,20}divide",
        r"(?:world|tensor parallel|tp)[ _-]?size must be a power of",
        r"^(?:.*AssertionError: )?\d+ is not divisible by \d+",
        r"output_size\S* .*not divisible by weight quantization block",
        r"cannot (?:be )?(?:split|shard)\w* .*heads? .*(?:GPU|rank|device)s",
    ),
    sign(
        "nccl",
        STRONG,
        r"NCCL WARN",
        r"nccl(?:InvalidUsage|UnhandledCudaError|InternalError|RemoteError|InvalidArgument)",
        r"NCCL (?:error|failure).{0,20}(?:invalid usage|internal error|unhandled cuda error|remote process|invalid "
        r"argument)",
        r"Duplicate GPU detected",
        r"Bootstrap ?: no socket interface found",
        r"NCCL (?:communicator was aborted|version mismatch)|NCCL watchdog",
        r"Watchdog caught collective operation timeout",
        r"libnccl\S* (?:cannot open|not found)|Failed to load NCCL library",
        r"(?:gloo|c10d|DistNetworkError).*(?:connectFullMesh|client socket has timed out|failed to connect|timed out)",
        r"Unable to find address for: \S+",
        r"(?:set|check|invalid|no) .{0,30}(?:NCCL|GLOO)_SOCKET_IFNAME",
        r"init_process_group.*(?:timed? ?out|timeout)",
        unless=r"posix_fallocate|/dev/shm|peer access",
    ),
    sign("nccl", HINT, r"NCCL error|DistBackendError|ncclSystemError", r"NCCL_(?:DEBUG|IB_DISABLE|NET)=?"),
    sign(
        "p2p",
        STATED,
        r"peer access is not supported|peer mapping resources|PEER_ACCESS_\w+",
        r"custom_all_?reduce\S*\W+.{0,20}(?:invalid argument|resource already mapped|peer|illegal)",
        r"(?:set|try|export|need)\w* .{0,20}NCCL_P2P_DISABLE|P2P\b.{0,60}(?:not supported|disabled|broken|hang|fail"
        r"|doesn'?t support)",
        r"doesn'?t support faster communication broadband via P2P",
        r"(?:hang|stuck|deadlock)\w*.{0,60}(?:P2P|peer[- ]to[- ]peer|custom[ _]all[-_ ]?reduce)",
        cuda(217),
        cuda(711),
    ),
    sign("p2p", LIKELY, r"cudaIpcOpenMemHandle|open_mem_handle|register_(?:graph_)?buffers?\b.*(?:Error|fail)"),
    sign("p2p", HINT, r"No available (?:shared memory broadcast )?block found in \d+ second", unless=_SERVED),
    # Start-ups that hang between the GPUs end with these lines; healthy ones go on.
    sign(
        "p2p",
        LIKELY,
        r"vLLM is using nccl==\S+(?:\n.*(?:NCCL INFO|nccl==|NCCL version).*)*\s*\Z",
        r"(?:generating GPU P2P access cache\b|Registering \d+ cuda graph addresses).*\s*\Z",
    ),
    sign("p2p", HINT, r"(?:NCCL INFO .*\bvia (?:P2P|SHM)\b.*|NCCL INFO Connected all (?:rings|trees).*)\s*\Z"),
)

SIGNS = (*_HARDWARE, *_MEMORY, *_SEVERAL)
