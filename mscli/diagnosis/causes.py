"""The closed list of causes: each code with what it means and what to do, where a sign says nothing closer."""

from __future__ import annotations

from collections.abc import Mapping

_FITS = "`mscli plan` shows what fits."

# code -> (what is wrong, what to do)
CAUSES: Mapping[str, tuple[str, str]] = {
    "no_driver": (
        "no NVIDIA kernel module is loaded for the running kernel",
        "Install the driver for this kernel (`sudo apt install linux-headers-$(uname -r)`, then reinstall the driver), "
        "load it with `sudo modprobe nvidia`; if that says 'key rejected', sign it or switch Secure Boot off.",
    ),
    "nvml_not_found": (
        "the driver's libraries (libnvidia-ml, libcuda) are not visible to the engine",
        "In a container: start it with `--gpus all` and the NVIDIA container toolkit (in Kubernetes with "
        "runtimeClassName "
        "nvidia); otherwise install the driver and check `ldconfig -p | grep -e libcuda -e libnvidia-ml`.",
    ),
    "nvml_mismatch": (
        "the driver's libraries and the loaded kernel module are different releases, as after an upgrade",
        "Restart the machine, or reload the module when nothing uses it: "
        "`sudo rmmod nvidia_drm nvidia_modeset nvidia_uvm nvidia && sudo modprobe nvidia`.",
    ),
    "driver_too_old": (
        "the NVIDIA driver is older than the CUDA that the engine was built with",
        "Update the driver (`nvidia-smi` shows the CUDA it supports), or install a build or image for that CUDA.",
    ),
    "driver_vs_compat": (
        "another libcuda (cuda-compat or a stub) stands before the driver's own",
        "Take cuda-compat and stubs out of LD_LIBRARY_PATH and /etc/ld.so.conf.d: `ldconfig -p | grep libcuda`.",
    ),
    "wsl": (
        "the Windows side of WSL does not give this Linux its GPU",
        "Update Windows and its NVIDIA driver, run `wsl --update && wsl --shutdown`, and remove every Linux NVIDIA "
        "driver "
        "inside WSL: only /usr/lib/wsl/lib may provide libcuda and libnvidia-ml.",
    ),
    "fabric_manager": (
        "the NVSwitch fabric is not up: the fabric manager does not run or is of another release than the driver",
        "Install nvidia-fabricmanager of the driver's release; `sudo systemctl enable --now nvidia-fabricmanager`.",
    ),
    "suspend": (
        "the driver lost its GPU context, as after a suspend (CUDA error 999)",
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm, then restart the engine.",
    ),
    "xid": (
        "the GPU reported a fault (Xid), fell off the bus or no longer answers",
        "`sudo dmesg | grep -i -e xid -e nvrm` shows which; check power, seat and temperature, then restart the "
        "machine.",
    ),
    "ecc": (
        "the GPU has uncorrectable memory errors",
        "`nvidia-smi -q -d ECC,ROW_REMAPPER` shows which; reset the GPU, and have it replaced if they return.",
    ),
    "mig": (
        "the GPU is cut into MIG instances where the engine expects whole GPUs",
        "Give the engine one instance by a name it understands, or switch MIG off: `sudo nvidia-smi -mig 0`.",
    ),
    "visible_devices": (
        "CUDA_VISIBLE_DEVICES names GPUs that are not there or hides those wanted",
        "Compare `mscli gpus` with CUDA_VISIBLE_DEVICES where the engine runs; unset it or name existing indices.",
    ),
    "cpu_fallback": (
        "the engine works, but all or part of the model is on the CPU",
        f"Ask for less context or a smaller quantisation, and free the GPU: `mscli gpus`, {_FITS}",
    ),
    "compute_capability": (
        "the GPU's compute capability is too low for this data type, kernel or quantisation",
        "Take one that this GPU has: FP16 instead of BF16 (`--dtype half`), Q4 GGUF instead of FP8, another attention.",
    ),
    "cuda_arch": (
        "this build holds no code for the GPU's architecture",
        "Install a build for it: Blackwell (sm_120) needs PyTorch built with CUDA 12.8 or newer.",
    ),
    "oom_weights": (
        "the weights or the first compute buffers do not fit into the GPU's memory",
        f"Take a smaller quantisation, more GPUs, or another variant: {_FITS}",
    ),
    "oom_kv": (
        "the weights fit, the KV cache for this context does not",
        f"Ask for less context (`--ctx`), fewer users, or a KV cache of 8 bits: {_FITS}",
    ),
    "gpu_busy": (
        "another process or a second instance holds the GPU's memory",
        "`mscli gpus` shows who: stop it, choose another GPU, or ask for less memory utilisation.",
    ),
    "host_ram": (
        "the machine's RAM (or the limit of WSL or the container) ran out",
        "`sudo dmesg | grep -i 'killed process'` tells; free RAM, add swap, or raise the limit (WSL: .wslconfig).",
    ),
    "shm": (
        "/dev/shm is too small or full, so the workers cannot share memory",
        "Start the container with `--ipc=host` or `--shm-size 16g`; remove leftovers: `ls -la /dev/shm`.",
    ),
    "tp_divisibility": (
        "the number of GPUs does not divide the model's attention heads",
        "Use 1, 2, 4 or 8 GPUs (32 heads, 8 KV heads): with three cards, take two.",
    ),
    "nccl": (
        "NCCL, which connects the GPUs, could not start or was misconfigured",
        "Run again with NCCL_DEBUG=INFO; check NCCL_SOCKET_IFNAME, one process per GPU, and one version of NCCL.",
    ),
    "p2p": (
        "peer-to-peer transfers between these GPUs hang or are not supported",
        "NCCL_P2P_DISABLE=1, with vLLM also `--disable-custom-all-reduce`; or switch IOMMU/ACS off.",
    ),
    "docker_gpu": (
        "Docker cannot give the container a GPU: its NVIDIA runtime is missing or not configured, or there is no GPU",
        "Check `nvidia-smi` on the host, install nvidia-container-toolkit, then "
        "`sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`.",
    ),
    "docker_permission": (
        "this user may not talk to Docker",
        "sudo usermod -aG docker $USER, then log in anew.",
    ),
    "cdi": (
        "the CDI description of the GPUs is missing, stale or not enabled",
        "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, then `nvidia-ctk cdi list`.",
    ),
    "container_gpu_lost": (
        "the running container lost its GPUs, as after `systemctl daemon-reload`",
        'Restart the container; for good: "exec-opts": ["native.cgroupdriver=cgroupfs"] in daemon.json of Docker.',
    ),
    "container_user": (
        "the container's user has no passwd entry, or no home and cache folder it may write",
        "Set HOME (and HF_HOME, TRITON_CACHE_DIR) to a folder it may write, and give the user an entry in /etc/passwd.",
    ),
    "torch_abi": (
        "PyTorch and the engine's compiled parts are of different builds",
        "Install both anew, together, in a fresh environment, so that the engine brings its own PyTorch.",
    ),
    "nvcc_jit": (
        "a kernel is compiled at the start, and nvcc, CUDA_HOME, CUDA's headers or ninja are missing or wrong",
        "Install the CUDA toolkit of PyTorch's CUDA and ninja, and set CUDA_HOME to that one folder; or switch the "
        "kernel "
        "off (vLLM: VLLM_USE_FLASHINFER_SAMPLER=0).",
    ),
    "python_env": (
        "the Python environment lacks a package, a compiler or Python's headers, or has one that does not fit",
        "Install what the line names (`apt install build-essential python3-dev` for gcc and Python.h), best in a fresh "
        "environment.",
    ),
    "python_version": (
        "there is no build of the engine for this Python",
        "Use a Python that it supports, for example `uv venv --python 3.12`.",
    ),
    "mistral_common": (
        "mistral_common is missing, of a wrong version, or broken by another package",
        "pip install -U mistral_common, in the version that the engine's release asks for.",
    ),
    "transformers_old": (
        "Transformers is too old for this model",
        "pip install -U transformers",
    ),
    "transformers_api": (
        "the model is loaded with a class or tool that does not know its architecture",
        "Use AutoModelForImageTextToText (Mistral3ForConditionalGeneration), or a tool that supports it.",
    ),
    "bitsandbytes": (
        "bitsandbytes is missing, cannot load its CUDA library, or does not support this card",
        "pip install -U bitsandbytes; `python -m bitsandbytes` tests it.",
    ),
    "fork_spawn": (
        "CUDA was initialised before the workers were forked",
        "Set VLLM_WORKER_MULTIPROC_METHOD=spawn, and start it below `if __name__ == '__main__':`.",
    ),
    "build": (
        "the engine was built without something it needs, or its build failed",
        "Install a released build, or build again with what the line names.",
    ),
    "backend_no_gpu_build": (
        "the installed engine has no GPU code",
        "Install its build with CUDA.",
    ),
    "version_backend_old": (
        "the engine that runs is older than the model or the client needs",
        "Upgrade the engine and restart its server: after an upgrade the old one goes on running.",
    ),
    "unknown_arch": (
        "this engine does not know the model's architecture",
        "Upgrade the engine, or take a file of the model that was made for it.",
    ),
    "gguf_unsupported": (
        "this engine cannot load this GGUF",
        "Take another file of the model, or serve the GGUF with llama.cpp.",
    ),
    "ulimit": (
        "a process limit was reached: open files, threads or locked memory",
        "`ulimit -n 65536` before the start; for a service LimitNOFILE=65536, in a container --ulimit nofile=65536.",
    ),
    "tokenizer_format": (
        "flags for Mistral's own format and files in Hugging Face's (or the other way round) are mixed",
        "vLLM: --tokenizer-mode, --config-format and --load-format mistral, all three where params.json, "
        "tekken.json and "
        "consolidated*.safetensors are there, else none of them.",
    ),
    "cli_flags": (
        "a flag or its value is not what this version of the engine takes",
        "Correct or remove it; the engine's `--help` lists what it takes.",
    ),
    "tools": (
        "the server is not set up for tool calls",
        "vLLM: --enable-auto-tool-choice --tool-call-parser mistral; llama-server: --jinja; Ollama: a model with a "
        "template "
        "for tools.",
    ),
    "vision": (
        "images are not set up: no projector, too few images per prompt, or a model without vision",
        "llama-server: --mmproj FILE; vLLM: --limit-mm-per-prompt '{\"image\": 4}'; and a model that sees.",
    ),
    "chat_request": (
        "the request's messages do not fit the model's chat template",
        "Let roles alternate user/assistant, send at most one system message, first, and images as base64 data URLs.",
    ),
    "sampling": (
        "temperature or other sampling settings are not what the model takes",
        "Temperature 0.15 for Mistral Small 3.x; 0.7 with top_p 0.95 for Magistral.",
    ),
    "context_truncated": (
        "the prompt is longer than the context in force",
        "Set a longer context on the server (Ollama: num_ctx or OLLAMA_CONTEXT_LENGTH in the server's environment).",
    ),
    "hf_gated": (
        "the repository asks for accepted terms, or for a token that has them",
        "Accept the terms on the model's page, then `hf auth login` or HF_TOKEN where the download runs.",
    ),
    "hf_rate_limit": (
        "the hub limits requests from this address (HTTP 429)",
        "Wait, and log in: set HF_TOKEN where the download runs.",
    ),
    "network_proxy": (
        "the hub or registry cannot be reached, or is not trusted: proxy, TLS inspection, DNS or firewall",
        "Set HTTPS_PROXY and the company's certificate (SSL_CERT_FILE, REQUESTS_CA_BUNDLE) where the download runs.",
    ),
    "offline": (
        "without the hub, a file that is needed is not in the cache",
        "Fetch it while online (`mscli pull`), or start by the path of a local folder; HF_HUB_OFFLINE=1 forbids "
        "fetching.",
    ),
    "stalled_download": (
        "the download hangs or breaks off",
        "Start it again: it goes on where it stopped. HF_HUB_DISABLE_XET=1 takes the older way.",
    ),
    "corrupt_download": (
        "what arrived is not what the registry has",
        "Pull again, with one client at a time.",
    ),
    "corrupt_weights": (
        "a weight file is truncated or not what it should be",
        "`mscli pull --verify` finds it; remove it and fetch it again (`git lfs pull` for pointers).",
    ),
    "disk_full": (
        "there is no space where the bytes really go",
        "`df -h` shows where; make room, or move the cache or TMPDIR (HF_HOME, OLLAMA_MODELS).",
    ),
    "model_not_found": (
        "the model, file, tag or repository is not there",
        "Check its name and path; pull it first.",
    ),
    "engine_missing": (
        "the engine itself, or a part of it, is not installed or not found",
        "Install it, or put it on PATH; `mscli engines` shows what was found.",
    ),
    "ollama_not_running": (
        "no Ollama server answers where the client looks",
        "Start it (`sudo systemctl start ollama`), or set OLLAMA_HOST to where it listens.",
    ),
    "ollama_two_users": (
        "two Ollama servers run with a model folder each",
        "Run one: stop the one started by hand and configure the service (`sudo systemctl edit ollama`).",
    ),
    "permissions": (
        "the engine's user may not read or write the model folder",
        "Let it: `namei -l FOLDER` shows which folder on the way is closed to that user.",
    ),
    "port": (
        "the port is taken",
        "`ss -ltnp` shows by whom; stop it or take another with --port.",
    ),
}

# What follows from what: where the first is found, the others are read as its consequences.
LEADS_TO: Mapping[str, frozenset[str]] = {
    cause: frozenset(consequences.split())
    for cause, consequences in {
        "no_driver": "nvml_not_found cpu_fallback visible_devices docker_gpu backend_no_gpu_build",
        "nvml_not_found": "no_driver cpu_fallback visible_devices docker_gpu backend_no_gpu_build",
        "nvml_mismatch": "no_driver nvml_not_found cpu_fallback visible_devices docker_gpu container_gpu_lost xid",
        "driver_too_old": "cpu_fallback docker_gpu backend_no_gpu_build visible_devices cuda_arch build "
        "driver_vs_compat",
        "driver_vs_compat": "cpu_fallback visible_devices driver_too_old nvml_mismatch backend_no_gpu_build",
        "wsl": "no_driver nvml_not_found docker_gpu cpu_fallback container_gpu_lost suspend",
        "fabric_manager": "cpu_fallback visible_devices nccl nvml_not_found backend_no_gpu_build",
        "suspend": "cpu_fallback visible_devices no_driver container_gpu_lost backend_no_gpu_build",
        "xid": "gpu_busy cpu_fallback nccl container_gpu_lost visible_devices no_driver suspend",
        "ecc": "xid nccl cpu_fallback",
        "mig": "visible_devices unknown_arch nccl nvml_not_found no_driver",
        "visible_devices": "cpu_fallback no_driver unknown_arch nccl suspend backend_no_gpu_build",
        "compute_capability": "cuda_arch unknown_arch cpu_fallback bitsandbytes build nvcc_jit",
        "cuda_arch": "driver_too_old bitsandbytes compute_capability unknown_arch build",
        "gpu_busy": "oom_weights oom_kv cpu_fallback",
        "oom_weights": "cpu_fallback host_ram nccl",
        "oom_kv": "oom_weights cpu_fallback cli_flags nccl",
        "host_ram": "nccl oom_kv oom_weights shm ulimit cpu_fallback",
        "shm": "nccl disk_full host_ram permissions",
        "p2p": "nccl xid shm",
        "nccl": "shm",
        "cdi": "docker_gpu nvml_not_found",
        "docker_gpu": "engine_missing nvml_not_found cli_flags",
        "docker_permission": "permissions engine_missing",
        "container_gpu_lost": "suspend no_driver cpu_fallback visible_devices permissions",
        "container_user": "permissions unknown_arch python_env model_not_found",
        "torch_abi": "unknown_arch python_env engine_missing nvml_not_found transformers_old bitsandbytes nccl",
        "python_env": "unknown_arch build transformers_api nvcc_jit model_not_found",
        "nvcc_jit": "build python_env model_not_found engine_missing cuda_arch",
        "mistral_common": "python_env tokenizer_format unknown_arch transformers_old",
        "transformers_old": "python_env unknown_arch version_backend_old tokenizer_format transformers_api",
        "bitsandbytes": "python_env torch_abi cpu_fallback build cuda_arch backend_no_gpu_build cli_flags",
        "build": "python_env cuda_arch engine_missing backend_no_gpu_build",
        "backend_no_gpu_build": "cpu_fallback build no_driver visible_devices",
        "python_version": "build python_env engine_missing network_proxy",
        "gguf_unsupported": "unknown_arch corrupt_weights model_not_found tokenizer_format",
        "unknown_arch": "gguf_unsupported version_backend_old corrupt_weights",
        "version_backend_old": "unknown_arch cli_flags vision model_not_found hf_gated",
        "corrupt_weights": "gguf_unsupported unknown_arch tokenizer_format model_not_found",
        "disk_full": "engine_missing corrupt_weights stalled_download permissions corrupt_download",
        "hf_gated": "model_not_found network_proxy offline tokenizer_format",
        "hf_rate_limit": "network_proxy offline model_not_found hf_gated stalled_download",
        "offline": "network_proxy model_not_found tokenizer_format",
        "network_proxy": "offline model_not_found stalled_download tokenizer_format",
        "stalled_download": "host_ram network_proxy",
        "model_not_found": "tokenizer_format hf_gated offline",
        "permissions": "model_not_found ollama_two_users container_user",
        "port": "ollama_not_running",
        "ollama_two_users": "model_not_found ollama_not_running",
        "ulimit": "host_ram cli_flags",
        "fork_spawn": "unknown_arch suspend",
        "sampling": "cli_flags",
        "tools": "chat_request cli_flags",
        "vision": "gguf_unsupported corrupt_weights",
        "tokenizer_format": "mistral_common transformers_api",
    }.items()
}
