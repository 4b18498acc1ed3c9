"""Environment variables in a report: which of them matter to a helper, and whose values may be shown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

# Variables that bear on engines and downloads, by how their names begin; of most only that they are set is told.
_TELLING = (
    *("CUDA_", "NVIDIA_", "NCCL_", "VLLM_", "OLLAMA_", "LLAMA_", "GGML_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_"),
    *("TORCH_", "PYTORCH_", "TRITON_", "XFORMERS_", "FLASHINFER_", "MSCLI_", "OMP_", "MKL_", "LD_", "WSL_", "DOCKER_"),
)
_TELLING_NAMES = frozenset(
    (
        *("PATH", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "TMPDIR", "LANG", "LC_ALL", "XDG_CACHE_HOME"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    )
)
# Settings whose values cannot be secrets; they pass the same redaction as everything else.
_VALUES_SHOWN = frozenset(
    (
        *("LLAMA_ARG_FIT", "LLAMA_ARG_CORS_ORIGINS", "VLLM_CPU_KVCACHE_SPACE", "VLLM_NO_USAGE_STATS"),
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_LAUNCH_BLOCKING", "NVIDIA_VISIBLE_DEVICES"),
        *("NVIDIA_DRIVER_CAPABILITIES", "NCCL_DEBUG", "NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "NCCL_SOCKET_IFNAME"),
        *("VLLM_USE_V1", "VLLM_ATTENTION_BACKEND", "VLLM_LOGGING_LEVEL", "VLLM_WORKER_MULTIPROC_METHOD"),
        *("OLLAMA_HOST", "OLLAMA_MODELS", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_FLASH_ATTENTION"),
        *("OLLAMA_NUM_PARALLEL", "OLLAMA_KEEP_ALIVE", "OLLAMA_MAX_LOADED_MODELS", "HF_HOME", "HF_HUB_CACHE"),
        *("HF_HUB_OFFLINE", "HF_ENDPOINT", "PYTORCH_CUDA_ALLOC_CONF", "MSCLI_HOME", "MSCLI_VLLM", "OMP_NUM_THREADS"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "TMPDIR", "LANG", "LC_ALL"),
    )
)


def telling(env: Mapping[str, str]) -> list[str]:
    """Those that matter, by name; of a closed list with their value, of the others only that they are set."""
    names = sorted(name for name in env if name.startswith(_TELLING) or name in _TELLING_NAMES)
    return [f"{name}={env[name]}" if name in _VALUES_SHOWN else f"{name} is set" for name in names]


def before_command(env: Mapping[str, str]) -> list[str]:
    """The variables of a command as they stand before it, values only where they may be shown."""
    return [f"{name}={shlex.quote(value) if name in _VALUES_SHOWN else '[removed]'}" for name, value in env.items()]
