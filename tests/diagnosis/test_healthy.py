"""Logs of engines that did their work name no cause: recorded from real ones, without the paths of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mscli.diagnosis.causes import START
from mscli.diagnosis.diagnose import diagnose, read

LOGS = sorted((Path(__file__).parent / "healthy").glob("*.log"))
LOAD = Path(__file__).parent / "load"
UNDER_LOAD = [json.loads(row) for row in (LOAD / "index.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("log", LOGS, ids=[log.stem for log in LOGS])
def test_a_healthy_log_names_no_cause(log: Path) -> None:
    loud = [
        (found.code, found.confidence, found.evidence) for found in diagnose(log.read_text()) if found.confidence >= 0.5
    ]

    assert loud == []


NOISE = {
    "optional GGUF keys": 'level=WARN source=ggml.go:149 msg="key not found" key=mistral3.rope.freq_scale default=1',
    "vLLM's clean stop": "(APIServer pid=8) ERROR [async_llm.py:523] vllm.v1.engine.exceptions.EngineDeadError: "
    "EngineCore encountered an issue. See stack trace (above) for the root cause.\nnanobind: leaked 4 instances!",
    "bitsandbytes without the kernels package": "Failed to load CPU gemm_4bit_forward from "
    "kernels-community: No module "
    "named 'kernels'. Please make sure you already `pip install kernels`",
    "llama-bench": "ggml_backend_load_best: failed to enumerate /usr/lib/x86_64-linux-gnu/ggml/backends0",
    "platforms that are not there": "DEBUG [__init__.py:120] ROCm platform is not available because: No module named "
    "'amdsmi'",
    "spawn is chosen": "WARNING [__init__.py] We must use the `spawn` multiprocessing start method. Overriding "
    "VLLM_WORKER_MULTIPROC_METHOD to 'spawn'.",
    "no NVLink": "WARNING custom_all_reduce.py:137] Custom allreduce is "
    "disabled because it's not supported on more than "
    "two PCIe-only GPUs.",
    "NCCL's plugins": "node:1:1 [0] NCCL INFO NET/Plugin: Plugin load returned 2 : libnccl-net.so: cannot open shared "
    "object file: No such file or directory\nINFO model loaded",
    "a context shorter than the model's": "llama_context: n_ctx_per_seq (4096) < n_ctx_train (131072) "
    "-- the full capacity "
    "of the model will not be utilized",
    "a request without the key": 'INFO:     127.0.0.1:44222 - "GET /v1/models HTTP/1.1" 401 Unauthorized',
    "the limit of open files": "WARNING [system_utils.py:255] Found ulimit of 20000 and "
    "failed to automatically increase "
    "with error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too many "
    "open files`. Consider increasing with ulimit -n",
    "a semaphore at the end": "UserWarning: resource_tracker: There appear to be 1 leaked "
    "shared_memory objects to clean "
    "up at shutdown",
    "one chosen GPU": 'level=WARN source=gpu.go:235 msg="user overrode visible devices" CUDA_VISIBLE_DEVICES=0',
    "FP8 without its own arithmetic": "WARNING Your GPU does not have native support for FP8 computation but FP8 "
    "quantization is being used.",
    "a busy cache": "WARNING Sequence group 0 is preempted by PreemptionMode.RECOMPUTE mode because there is not "
    "enough KV cache space.",
    "commands and settings": "pip install vllm transformers mistral_common bitsandbytes\n"
    "docker run --gpus all --shm-size 16g -e NCCL_P2P_DISABLE=1 -e HF_HUB_OFFLINE=1 -e CUDA_VISIBLE_DEVICES=0,1 vllm",
    "a container's banner": "NOTE: The SHMEM allocation limit is set to the default of 64MB. This may be insufficient "
    "for PyTorch. NVIDIA recommends the use of the following flags: docker run --gpus all --ipc=host "
    "--ulimit memlock=-1",
    "all layers placed": "load_tensors: offloaded 41/41 layers to GPU",
    "a small graph on the CPU": 'level=INFO source=ggml.go:638 msg="compute graph" backend=CPU buffer_type=CPU '
    'size="5.0 MiB"',
}


@pytest.mark.parametrize("line", NOISE.values(), ids=NOISE)
def test_noise_is_no_cause(line: str) -> None:
    assert [found for found in diagnose(line) if found.confidence >= 0.5] == []


# Lines of public threads whose engines worked, each with the thread.
PUBLIC = {
    "ollama/ollama#12136": 'level=INFO source=runner.go:67 msg="discovering available GPUs..."\n'
    'level=INFO source=types.go:42 msg="inference compute" id=GPU-cdf3c132 filter_id="" library=CUDA compute=9.0 '
    'name=CUDA0 description="NVIDIA H100 80GB HBM3" driver=12.9 type=discrete total="79.6 GiB" available="79.2 GiB"',
    "ollama/ollama#8689": 'level=WARN source=sched.go:137 msg="mllama doesn\'t support parallel requests yet"\n'
    'level=INFO source=sched.go:714 msg="new model will fit in available VRAM in single GPU, loading" parallel=1 '
    'available=15813967872 required="11.3 GiB"\n'
    'level=INFO source=server.go:104 msg="system memory" total="15.7 GiB" free="11.6 GiB" free_swap="13.2 GiB"\n'
    'level=INFO source=memory.go:356 msg="offload to cuda" projector.weights="1.8 GiB" layers.requested=-1 '
    'layers.model=41 layers.offload=41 memory.available="[14.7 GiB]" memory.required.full="11.3 GiB"',
    "ollama/ollama#1618": "gpu.go:236: INFO Searching for GPU management library libnvidia-ml.so\n"
    "gpu.go:282: INFO Discovered GPU libraries: [/usr/lib/wsl/drivers/nvmii.inf_amd64_2a8c/libnvidia-ml.so.1]\n"
    "gpu.go:99: INFO Nvidia GPU detected\ngpu.go:140: INFO CUDA Compute Capability detected: 8.6\n"
    '[GIN] 2024/01/27 - 01:17:01 | 200 |        16.3\u00b5s |       127.0.0.1 | HEAD     "/"',
    "ollama/ollama#941": "pulling manifest\npulling 8934d96d3f08... 100%\nverifying sha256 digest\nwriting manifest\n"
    "removing any unused layers\nsuccess",
    "vllm-project/vllm#8791": "INFO 10-12 00:26:58 launcher.py:27] Route: /health, Methods: GET\n"
    "INFO 10-12 00:26:58 launcher.py:27] Route: /tokenize, Methods: POST\nINFO:     Started server process [593]\n"
    "INFO:     Waiting for application startup.\nINFO:     Application startup complete.",
    "vllm-project/vllm#10517": "Loading model weights took 14.9888 GB\nMemory profiling results: "
    "total_gpu_memory=23.58GiB initial_memory_usage=15.34GiB peak_torch_memory=17.06GiB "
    "memory_usage_post_profile=15.35GiB non_torch_memory=0.35GiB kv_cache_size=3.81GiB gpu_memory_utilization=0.90\n"
    "GPU blocks: 1952, # CPU blocks: 2048\nMaximum concurrency for 20000 tokens per request: 1.56x",
    "vllm-project/vllm#9118": 'TRACE:    ASGI [1] Receive {"type": "lifespan.startup"}\n'
    "INFO:     Application startup complete.\nINFO:     Uvicorn running on http://0.0.0.0:8001 (Press CTRL+C to quit)\n"
    'INFO:     10.121.1.2 - "GET /v1/models HTTP/1.1" 200 OK',
    "vllm-project/vllm#14452": "INFO 07-28 15:07:12 [__init__.py:235] Automatically detected platform cuda.\n"
    "INFO 07-28 15:07:18 [config.py:2434] Chunked prefill is enabled with max_num_batched_tokens=8192.\n"
    "INFO 07-28 15:07:21 [core.py:572] Waiting for init message from front-end.\n"
    "INFO 07-28 15:07:21 [core.py:71] Initializing a V1 LLM engine (v0.10.0) with config: model='Qwen/Qwen3-0.6B'",
    "vllm-project/vllm#6650": "10-1-16-226:1024:1052 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct\n"
    "10-1-16-226:1024:1052 [0] NCCL INFO Connected all rings\n"
    "10-1-16-226:1024:1052 [0] NCCL INFO Connected all trees\n"
    "INFO:     Application startup complete.",
    "vllm-project/vllm#31387": "WARNING Your GPU does not have native support for FP8 computation but FP8 "
    "quantization is being used. Weight-only FP8 compression will be used leveraging the Marlin kernel.\n"
    "INFO model loaded",
    "gpustack/gpustack#1306": "0.00.031.013 I ggml_cuda_init: GGML_CUDA_FORCE_MMQ:    no\n"
    "0.00.031.017 I ggml_cuda_init: found 1 CUDA devices:\n"
    "0.00.031.025 I   Device 0: NVIDIA GeForce RTX 3060 Ti, compute capability 8.6, VMM: yes",
    "containers/ramalama#2570": "load_backend: loaded CUDA backend from /usr/bin/libggml-cuda.so\n"
    "load_backend: loaded RPC backend from /usr/bin/libggml-rpc.so\n"
    "main: n_parallel is set to auto, using n_parallel = 4 and kv_unified = true\nRunning without SSL\n"
    "start: binding port with default address family\nmain: loading model",
    "EricLBuehler/mistral.rs#1310": "INFO mistralrs_server: avx: false, neon: false, simd128: false, f16c: false\n"
    "INFO mistralrs_core::utils::tokens: Could not load token at "
    '"/home/m/.cache/huggingface/token", using no HF token.\n'
    "INFO mistralrs_core::pipeline::gguf: Prompt chunk size is 1024.",
    "vllm-project/vllm#14025": "pod:275:275 [2] NCCL INFO P2P is disabled between connected GPUs 2 and 1. You can "
    "repress this message with NCCL_IGNORE_DISABLED_P2P=1.\nINFO:     Application startup complete.",
    "NVIDIA/k8s-device-plugin#60": "| NVIDIA-SMI 390.25                 Driver Version: 390.25                    |\n"
    "|   0  GeForce GTX 108...  Off  | 00000000:04:00.0 Off |                  N/A |\n"
    "|  0%   41C    P8     7W / 250W |      0MiB / 11178MiB |      1%      Default |",
}


@pytest.mark.parametrize("log", PUBLIC.values(), ids=PUBLIC)
def test_public_logs_of_engines_that_worked_name_no_cause(log: str) -> None:
    assert [(found.code, found.confidence) for found in diagnose(log) if found.confidence >= 0.5] == []


@pytest.mark.parametrize("log", [log for log in LOGS if log.stem.startswith("ollama")], ids=lambda log: log.stem)
@pytest.mark.parametrize("lines", [20, 40, 80, None], ids=lambda lines: f"{lines or 'all'} lines")
def test_a_server_of_ollama_that_is_well_names_none_from_its_first_lines_on(log: Path, lines: int | None) -> None:
    """On the CPU as mscli starts it there, without the internet, with and without OLLAMA_DEBUG, before and after a
    model is loaded: not even a cause that is only possible."""
    assert diagnose("\n".join(log.read_text().splitlines()[:lines])) == ()


@pytest.mark.parametrize("log", sorted((Path(__file__).parent / "refused").glob("*.log")), ids=lambda log: log.stem)
def test_a_server_that_refuses_requests_for_what_it_has_not_is_well(log: Path) -> None:
    """Real servers without a model, asked for some by many clients at once."""
    seen = read(log.read_text())

    assert seen.served
    assert not seen.went_down
    assert not seen.failed
    assert set(seen.refusals) == {"chat_request", "model_not_found"}


@pytest.mark.parametrize("told", [True, False], ids=["engine told", "engine not told"])
@pytest.mark.parametrize("row", UNDER_LOAD, ids=[row["file"] for row in UNDER_LOAD])
def test_an_engine_under_load_is_well_and_why_it_refused_requests_is_named(row: dict[str, str], told: bool) -> None:
    """Real engines as `mscli up` starts them, which did their work: asked by many clients at once, with too long
    prompts, images that nobody can read, bodies that are no JSON, wrong keys and models, clients that leave."""
    seen = read((LOAD / f"{row['file']}.log").read_text(), row["engine"] if told else None)

    assert [(cause.code, cause.confidence, cause.evidence) for cause in seen.causes if cause.scope == START] == []
    assert seen.served
    assert not seen.failed
    assert list(seen.refusals) == row["refused"]
