"""What Ollama's log lines and answers mean, as data: the signs by which a cause is recognised, in order of precedence.

Starting, pulling, loading, finding the GPU, placing, answering: what stops the earlier step is the cause of the rest.
"""

from __future__ import annotations

from mscli.diagnosis.signature import Sign

_RESTART = "Restart the server (`sudo systemctl restart ollama`)"
_UPGRADE = (
    f"{_RESTART}: an old one goes on running after an upgrade. If it is old on disk too, install a newer Ollama. The "
    "version that counts is the server's: `curl -s 127.0.0.1:11434/api/version`."
)
_NEWER = "Install a newer Ollama and restart the server, or take the model from Ollama's own library."
_LESS = "Ask for less: a smaller --ctx, --kv q8_0, or a smaller variant; `mscli plan` shows what fits."
GPU_HELD = "See who holds GPU memory: `mscli gpus`; another model of the server: `ollama ps`, `ollama stop NAME`."
_DRIVER = "Check with `nvidia-smi`; load the module (`sudo modprobe nvidia`) or install the driver for this kernel."
_PROXY = (
    "The server fetches, so a proxy must stand in ITS environment (HTTPS_PROXY by `sudo systemctl edit ollama`), and a "
    "company's certificate among the certificates of the system or container it runs in."
)
_FOLDER = (
    "The server's user must own its folder and be able to enter every folder above it (`namei -l FOLDER` shows where "
    "it stops; private homes are closed to others): move the models, or `chown` them to that user."
)

_CONTEXT = (
    "Set the context in the model that is served, as `mscli up` does, or OLLAMA_CONTEXT_LENGTH in the server's "
    "environment; in the client's it does nothing."
)

_STARTING = (
    Sign(
        "docker_permission",
        r"permission denied.*docker(?: daemon|\.sock| API)",
        "this user may not talk to Docker",
        "sudo usermod -aG docker $USER, then log in anew.",
    ),
    Sign(
        "docker_gpu",
        r"could not select device driver .*gpu|unknown or invalid runtime name: nvidia|nvidia-container-cli: .*error",
        "Docker cannot give the container a GPU",
        "Install nvidia-container-toolkit and run `sudo nvidia-ctk runtime configure`, then restart Docker.",
    ),
    Sign(
        "engine_missing",
        r"ollama: (?:command )?not found|executable file not found .*ollama|\"ollama\": executable file not found"
        r"|llama-server binary not found|unable to locate (?:llama|ollama)",
        "Ollama, or a part of it, is not installed",
        "mscli engines install ollama",
    ),
    Sign(
        "port",
        r"(?:listen tcp\S*|bind host port) (?P<address>\S+): (?:bind: )?address already in use",
        "{address} is taken, very likely by an Ollama that runs already (the installer sets up a service)",
        "Use the server that runs: `mscli up` finds it. Who has the port: `ss -ltnp | grep 11434`.",
    ),
    Sign(
        "port",
        r"listen tcp\S* (?P<address>\S+): bind: (?:cannot assign requested address|permission denied)",
        "it may not listen on {address}: no address of this machine, or a port below 1024",
        "Correct OLLAMA_HOST or --host and --port.",
    ),
    Sign(
        "container_user",
        r"\$HOME is not defined",
        "the user that runs it has no home folder",
        "Set HOME for the service or container, or give the user an entry and a writable home.",
    ),
    Sign(
        "disk_full",
        r"no space left on device|disk quota exceeded",
        "there is no space left where the server writes",
        "Make room (`df -h`), remove models (`ollama rm NAME`), or move OLLAMA_MODELS.",
    ),
    Sign(
        "permissions",
        r"(?:mkdir|open|stat|lstat|rename|unlink|remove|chtimes|write|read|create directory|directory) "
        r"(?P<path>/[^:]+): (?P<why>permission denied|read-only file system|operation not permitted)",
        "the server's user may not use {path} ({why})",
        _FOLDER,
    ),
)

_PULLING = (
    Sign(
        "version_backend_old",
        r"manifest: 412|requires a newer version of Ollama|not supported by your version of Ollama"
        r"|requires Ollama (?:version )?v?\d",
        "the server that runs is too old for this model",
        _UPGRADE,
    ),
    Sign(
        "hf_gated",
        r"manifest: 40[13]\b|[Aa]ccess to (?:this )?(?:model|repo).* is restricted|gated repo",
        "the model's owner asks for consent or a login first",
        "Accept the conditions on the model's page, or take it from Ollama's own library.",
    ),
    Sign(
        "hf_rate_limit",
        r"manifest: 429|status(?: code)?:? 429|rate limit",
        "too many requests from this address: the hub limits them",
        "Wait, then pull again; or take the model from Ollama's own library.",
    ),
    Sign(
        "corrupt_download",
        r"digest mismatch|digest .* does not match",
        "what arrived is not what the registry has: changed on the way, or written by two pulls at once",
        "Pull once more, with one server on the models folder only; behind a proxy try without it.",
    ),
    Sign(
        "gguf_unsupported",
        r"not GGUF or is not compatible|sharded GGUF|split (?:GGUF|model)s? .*not supported|unsupported content type",
        "Ollama cannot take this repository's files",
        "Take a repository with one GGUF file, or the model of Ollama's own library.",
    ),
    Sign(
        "stalled_download",
        r"part \d+ stalled",
        "the download stands still",
        "Stop it and pull again: it goes on from where it stopped.",
    ),
    Sign(
        "network_proxy",
        r"x509|failed to verify certificate|proxyconnect tcp|TLS handshake timeout"
        r"|(?:Get|Head|Post) \"?https?://(?!(?:127\.|localhost|\[::1\]|0\.0\.0\.0))[^ ]+.*(?:dial tcp|lookup|EOF"
        r"|reset by peer|timeout|unreachable|refused)|lookup \S+.*: (?:no such host|server misbehaving|i/o timeout)"
        r"|max retries exceeded",
        "the server cannot reach the registry, or does not trust what answers there",
        _PROXY,
    ),
    Sign(
        "model_not_found",
        r"manifest: (?:file does not exist|404)|manifest unknown",
        "the registry has no such model",
        "Check the name and the tag in Ollama's library.",
    ),
)

_LOADING = (
    Sign(
        "unknown_arch",
        r"unknown model architecture: '(?P<architecture>[^']*)'|[Uu]nsupported architecture:? \"?(?P<other>\w+)",
        "this Ollama does not know the architecture {architecture}{other}",
        _NEWER,
    ),
    Sign(
        "corrupt_weights",
        r"not within the file bounds|invalid file magic|invalid magic characters(?!: '?(?:tjgg|lmgg|fmgg))"
        r"|model is corrupted or incomplete"
        r"|unexpectedly reached end of file|tensor '[^']+' has invalid data|bad magic",
        "the model's file is damaged or incomplete",
        "Remove the model and pull it again.",
    ),
    Sign(
        "gguf_unsupported",
        r"error loading model hyperparameters|missing tensor '|wrong number of tensors|done_getting_tensors"
        r"|key not found in model|unknown pre-tokenizer type|invalid ggml type|unsupported GGUF version"
        r"|this model uses a weight format that is no longer supported",
        "this Ollama cannot load this GGUF file",
        _NEWER,
    ),
    Sign(
        "host_ram",
        r"requires more system memory \((?P<needed>[^)]+)\) than is available \((?P<free>[^)]+)\)",
        "the model needs {needed} of memory, {free} are free",
        f"Free some RAM. {_LESS}",
    ),
    Sign(
        "host_ram",
        r"terminated: signal: killed|oom-kill|Out of memory: Killed|unable to allocate CPU buffer|std::bad_alloc"
        r"|Cannot allocate memory|insufficient memory \(attempted",
        "the kernel ended it, or gave it no RAM",
        f"`dmesg | grep -i 'out of memory'` tells whether it did. {_LESS}",
    ),
    Sign(
        "cuda_arch",
        r"no kernel image is available|no device code compatible|not in compiled architectures|not compiled for any of",
        "this Ollama holds no code for this GPU's architecture",
        "Install the newest Ollama; the newest cards need it, and the oldest are no longer built for.",
    ),
    Sign(
        "driver_too_old",
        r"PTX was compiled with an unsupported toolchain|driver version is insufficient|NVIDIA driver too old"
        r"|nvidia driver is too old|old CUDA driver detected|0xc0000139",
        "the NVIDIA driver is too old for the CUDA that this Ollama brings",
        "Update the driver (Ollama from 0.30 needs 550 or newer).",
    ),
    Sign("ecc", r"uncorrectable ECC error", "the GPU reports uncorrectable memory errors", "Reset or replace it."),
    Sign(
        "xid",
        r"Xid \(|fallen off the bus|GPU is lost|unspecified launch failure",
        "the GPU reported a fault or fell off the bus",
        "`dmesg | grep -i xid` shows which; check power and temperature, then restart the machine.",
    ),
    Sign(
        "oom_kv",
        r"failed to allocate (?:the )?buffer for kv cache|kv.?cache.*out of memory|failed to (?:initialize|create) the"
        r" context: failed to",
        "the weights fit, but the KV cache for this context does not",
        _LESS,
    ),
    Sign(
        "oom_weights",
        r"cudaMalloc failed: out of memory|CUDA error: out of memory|unable to allocate CUDA\S* buffer"
        r"|reported out-of-memory|cuMemCreate.*out of memory|CUBLAS_STATUS_ALLOC_FAILED|ErrorOutOfDeviceMemory",
        "the model does not fit into the GPU's free memory",
        f"{GPU_HELD} {_LESS}",
    ),
    Sign(
        "ulimit",
        r"too many open files|pthread_create failed|resource temporarily unavailable",
        "a process limit was reached",
        "Raise it for the service: `sudo systemctl edit ollama`, LimitNOFILE=65536, and restart it.",
    ),
)

# Errors of CUDA and NVML by number: 3 not initialised, 9 (NVML) driver not loaded, 18 (NVML) mismatch, 35 driver too
# old, 46 device unavailable, 100 no device, 801 not supported, 802 system not ready, 803 wrong libcuda, 999 unknown.
_CUDA = r"(?:cuInit err|cudaSetDevice err|nvcuda init failure|cudart init failure|cuda driver library init failure"
_CUDA += r"|failed to get device context|CUDA error):?\s*"
_NVML = r"nvml (?:vram )?init failure:?\s*"

_FINDING = (
    Sign(
        "nvml_mismatch",
        rf"{_NVML}18\b|[Dd]river/library version mismatch",
        "the driver's library and its kernel module are of different releases",
        "Restart the machine, or reload the module: sudo rmmod nvidia_uvm nvidia && sudo modprobe nvidia",
    ),
    Sign(
        "container_gpu_lost",
        r"[Ff]ailed to initialize NVML: Unknown Error",
        "the container lost its GPU, as after `systemctl daemon-reload`",
        'Restart the container; for good: "exec-opts": ["native.cgroupdriver=cgroupfs"] in Docker\'s daemon.json.',
    ),
    Sign(
        "suspend",
        rf"{_CUDA}999\b|{_NVML}999\b",
        "the driver lost its GPU context, as after a suspend (CUDA error 999)",
        f"sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm, then: {_RESTART}",
    ),
    Sign(
        "no_driver",
        rf"{_NVML}9\b|[Dd]river not loaded|couldn't communicate with the NVIDIA driver",
        "the NVIDIA kernel module is not loaded",
        _DRIVER,
    ),
    Sign(
        "driver_too_old",
        rf"{_CUDA}35\b",
        "the NVIDIA driver is too old for the CUDA that this Ollama brings",
        "Update the driver (Ollama from 0.30 needs 550 or newer).",
    ),
    Sign(
        "fabric_manager",
        rf"{_CUDA}802\b|system not yet initialized",
        "the NVSwitch fabric is not up",
        "sudo systemctl restart nvidia-fabricmanager",
    ),
    Sign(
        "driver_vs_compat",
        rf"{_CUDA}803\b|unsupported display driver / cuda driver combination",
        "another libcuda (cuda-compat) stands before the driver's own",
        "Take cuda-compat out of the server's LD_LIBRARY_PATH: `ldconfig -p | grep libcuda`.",
    ),
    Sign(
        "compute_capability",
        r"CUDA GPU is too old|Compute Capability detected: [1-4]\.|skipping CUDA device .*compute capability",
        "the GPU is too old for this Ollama",
        "Ollama needs compute capability 5.0; `mscli gpus` shows the card's.",
    ),
    Sign(
        "visible_devices",
        r"no CUDA-capable device|invalid device ordinal|no nvidia devices detected"
        r"|user overrode visible devices\" CUDA_VISIBLE_DEVICES=(?P<value>\S*)",
        "CUDA shows the server no GPU {value}",
        "Compare `mscli gpus` with CUDA_VISIBLE_DEVICES in the server's environment (`systemctl show ollama`).",
        beside=r"no CUDA-capable|invalid device|no compatible GPUs|library=\"?cpu|no nvidia devices",
    ),
    Sign(
        "no_driver",
        rf"{_CUDA}100\b",
        "CUDA finds no device (error 100)",
        _DRIVER,
    ),
    Sign(
        "nvml_not_found",
        r"(?:libcuda|libnvidia-ml)\S*: cannot open shared object|unable to load (?:libcuda|libnvidia-ml)",
        "the driver's libraries were not found by the server",
        "Install the NVIDIA driver; a container needs --gpus all.",
    ),
    Sign(
        "backend_no_gpu_build",
        r"not compiled with GPU offload support|no usable GPU found|[Dd]ynamic LLM libraries\"? "
        r"(?:runners=)?\"?\[(?:cpu\w*[ ,]*)+\]",
        "this Ollama has no GPU code: some distributions package it apart",
        "Install the package with CUDA (ollama-cuda), or: mscli engines install ollama",
    ),
)

_PLACING = (
    Sign(
        "cpu_fallback",
        r"layers\.model=(?P<layers>\d+) .*?layers\.offload=0\b",
        "none of the {layers} layers fits on a GPU beside what it reserves, so all of it is on the CPU",
        f"{_LESS} {GPU_HELD} Ollama before 0.30 reserves 8.8 GiB for images alone: a newer one does not.",
    ),
    Sign(
        "cpu_fallback",
        r"layers\.model=(?P<layers>\d+) .*?layers\.offload=(?!(?P=layers)\b)(?P<placed>\d+)",
        "only {placed} of {layers} layers are on a GPU; the image projector counts as the last one",
        f"{GPU_HELD} A newer Ollama (0.30) reserves less for images. {_LESS}",
    ),
    Sign(
        "cpu_fallback",
        r"msg=\"compute graph\" (?:buffer|backend|device)=CPU\b.* size=\"?[1-9][\d.]* GiB",
        "a large compute graph is on the CPU",
        f"{GPU_HELD} {_LESS}",
    ),
    Sign(
        "cpu_fallback",
        r"offloaded (?P<placed>0|[1-9]\d*)/(?!(?P=placed)\b)(?P<layers>\d+) layers to GPU",
        "only {placed} of {layers} layers are on the GPU",
        f"{GPU_HELD} {_LESS}",
    ),
    Sign(
        "cpu_fallback",
        r"model (?:request|is) too large for system|disabling multimodal projector offload",
        "Ollama finds the model too large for this machine's memory, or moves its projector to the CPU",
        f"{GPU_HELD} Ollama before 0.30 reserves far more than it uses: a newer one does not. {_LESS}",
    ),
    Sign(
        "cpu_fallback",
        r"no compatible GPUs were discovered|msg=\"inference compute\" .*library=\"?cpu\b|no GPU detected"
        r"|failure during (?:llama-server )?GPU discovery|GPU discovery watchdog timed out",
        "the server found no GPU it can use",
        f"{_DRIVER} Its log says more with OLLAMA_DEBUG=1.",
    ),
)

_ANSWERING = (
    Sign(
        "tools",
        r"does not support tools",
        "the model has no template for tool calls (imported from a bare GGUF?)",
        "Use the model of Ollama's own library, or give the Modelfile its TEMPLATE.",
    ),
    Sign(
        "vision",
        r"does not support (?:vision|images)|missing data required for image input|image input is not supported",
        "the model takes no images: it has no projector",
        "Use a model with vision from Ollama's own library.",
    ),
    Sign(
        "context_truncated",
        r"truncating input prompt.* limit=(?P<limit>\d+) prompt=(?P<prompt>\d+)",
        "a prompt of {prompt} tokens was cut to the {limit} of the context in force",
        _CONTEXT,
    ),
    Sign(
        "context_truncated",
        r"truncating input|longer than the context length|exceeds the available context size",
        "the prompt is longer than the context in force",
        _CONTEXT,
    ),
    Sign(
        "ollama_two_users",
        r"model .* not found",
        "this server does not have the model: a second server was started by hand and has a models folder of its own",
        "Run one server: stop the one started by hand and configure the service (`sudo systemctl edit ollama`).",
        beside=r"ollama serve|Generating new private key|total blobs: 0\b",
    ),
    Sign(
        "model_not_found",
        r"model .* not found",
        "the server has no such model",
        "`ollama list` shows what it has; `mscli pull` fetches.",
    ),
    Sign(
        "ollama_not_running",
        r"could not connect to (?:a running )?[Oo]llama|[Ff]ailed to connect to Ollama|ollama server not responding"
        r"|dial tcp \S+:\d+: connect: connection refused|onnection refused.*:11434|:11434.*onnection refused",
        "no Ollama server answers where the client looks",
        "If it runs elsewhere (`systemctl show ollama -p Environment`), set the same OLLAMA_HOST for the client.",
    ),
    Sign(
        "version_backend_old",
        r"client version is (?P<client>\S+)",
        "the server that runs is not the one that is installed ({client})",
        _UPGRADE,
    ),
    Sign("unknown_arch", r"unable to load model: ", "this Ollama cannot load the model, which may be too new", _NEWER),
)

SIGNS = (*_STARTING, *_PULLING, *_LOADING, *_FINDING, *_PLACING, *_ANSWERING)
