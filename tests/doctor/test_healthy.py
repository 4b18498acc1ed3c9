"""Logs of engines that did their work name no cause: recorded from real ones, without the paths of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from mscli.doctor.diagnosis import diagnose

LOGS = sorted((Path(__file__).parent / "healthy").glob("*.log"))


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
    "VLLM_WORKER_MULTIPROCESSING_METHOD to 'spawn'.",
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
