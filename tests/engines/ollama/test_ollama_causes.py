"""Causes from Ollama's log: every published case (cases.jsonl), the same mechanisms otherwise, and no false alarm."""

# ruff: noqa: E501 (a log's lines are as long as they are)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mscli.diagnosis.diagnose import start_failure

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text().splitlines()]


def code(log: str, exit_status: int | None = 1) -> str:
    return start_failure(log, "ollama", exit_status).code


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_published_case_is_recognised(case: dict[str, Any]) -> None:
    found = start_failure(case["log"], "ollama", 1)
    assert found.code == case["category"], f"{case['source']}: {case['cause']}\n{found}"
    assert found.remedy
    assert found.evidence[0] in case["log"]


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("Error: listen tcp 0.0.0.0:8080: bind: address already in use", "port"),
        ("driver failed: failed to bind host port 0.0.0.0:11434/tcp: address already in use", "port"),
        ("Error: listen tcp 10.1.2.3:11434: bind: cannot assign requested address", "port"),
        ("Error: mkdir /mnt/nas/ollama/blobs: read-only file system", "permissions"),
        ("Error: open /data/.ollama/id_ed25519: permission denied", "permissions"),
        ("panic: $HOME is not defined", "container_user"),
        ("write /usr/share/ollama/blobs/sha256-12-partial: no space left on device", "disk_full"),
        ("bash: ollama: command not found", "engine_missing"),
        ("Error: this model is not supported by your version of Ollama. You may need to upgrade", "version_backend_old"),
        ("Error: pull model manifest: file does not exist", "model_not_found"),
        ("Error: max retries exceeded: EOF", "network_proxy"),
        ('Error: Head "https://x.r2.cloudflarestorage.com/a": dial tcp 1.2.3.4:443: i/o timeout', "network_proxy"),
        ('pull model manifest: Get "https://registry.ollama.ai/v2/": proxyconnect tcp: EOF', "network_proxy"),
        ("msg=\"1fa8532d986d part 3 stalled; retrying. If this persists, press ctrl-c to exit\"", "stalled_download"),
        ("Error: unsupported architecture \"Mistral3ForConditionalGeneration\"", "unknown_arch"),
        ("Error: invalid file magic", "corrupt_weights"),
        ("llama_model_load: error loading model: missing tensor 'output.weight'", "gguf_unsupported"),
        ("model requires more system memory (14.4 GiB) than is available (3.1 GiB)", "host_ram"),
        ("llama runner process has terminated: signal: killed", "host_ram"),
        ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9216 MiB: cudaMalloc failed: out of memory", "oom_weights"),
        ("llama_kv_cache_init: failed to allocate buffer for kv cache", "oom_kv"),
        ("CUDA error: no kernel image is available for execution on the device", "cuda_arch"),
        ("CUDA error: the provided PTX was compiled with an unsupported toolchain.", "driver_too_old"),
        ('level=WARN msg="NVIDIA driver too old" driver=535 required_driver="550 or newer"', "driver_too_old"),
        ('msg="Unable to load cudart" error="your nvidia driver is too old or missing"', "driver_too_old"),
        ('error="cudart init failure: 35"', "driver_too_old"),
        ("Unable to load CUDA management library: nvml vram init failure: 9", "no_driver"),
        ("Unable to load CUDA management library: nvml vram init failure: 18", "nvml_mismatch"),
        ("Failed to initialize NVML: Driver/library version mismatch", "nvml_mismatch"),
        ("Failed to initialize NVML: Unknown Error", "container_gpu_lost"),
        ('msg="Unable to load nvcuda" error="nvcuda init failure: 999"', "suspend"),
        ('error="cuda driver library failed to get device context 802"', "fabric_manager"),
        ("cuInit err: 803", "driver_vs_compat"),
        ("cuInit err: 100", "no_driver"),
        ('msg="[0] CUDA GPU is too old. Compute Capability detected: 3.5"', "compute_capability"),
        (
            'level=WARN msg="user overrode visible devices" CUDA_VISIBLE_DEVICES=7\nmsg="no compatible GPUs were discovered"',
            "visible_devices",
        ),
        ('msg="Dynamic LLM libraries" runners="[cpu cpu_avx cpu_avx2]"', "backend_no_gpu_build"),
        ("docker: Error response from daemon: could not select device driver \"\" with capabilities: [[gpu]].", "docker_gpu"),
        ("load_tensors: offloaded 22/41 layers to GPU", "cpu_fallback"),
        ("load_tensors: offloaded 4/41 layers to GPU", "cpu_fallback"),
        ('msg="no compatible GPUs were discovered"', "cpu_fallback"),
        ('msg="disabling multimodal projector offload" reason="not enough memory"', "cpu_fallback"),
        ('{"error":"model \\"mistral-small3.1\\" not found, try pulling it first"}', "model_not_found"),
        ('"llama3.2:latest" does not support vision', "vision"),
        ('msg="truncating input messages which exceed context length" truncated=3', "context_truncated"),
        ("the prompt is longer than the context length currently available to the model", "context_truncated"),
        ("Error: could not connect to a running Ollama instance", "ollama_not_running"),
        ('Post "http://127.0.0.1:11434/api/chat": dial tcp 127.0.0.1:11434: connect: connection refused', "ollama_not_running"),
        ("ollama version is 0.5.1\nWarning: client version is 0.11.4", "version_backend_old"),
    ],
)  # fmt: skip
def test_the_mechanism_counts_and_not_the_words_around_it(log: str, expected: str) -> None:
    assert code(f"time=2026-01-02 level=INFO msg=starting\n{log}\ntime=2026-01-02 level=INFO msg=done") == expected


def test_a_gpu_that_others_hold_is_the_reason_for_the_cpu() -> None:
    log = (
        'msg="inference compute" id=GPU-1 library=CUDA name="NVIDIA GeForce RTX 4090" total="23.6 GiB" '
        'available="2.1 GiB"\nload_tensors: offloaded 3/41 layers to GPU'
    )
    found = start_failure(log, "ollama", None)
    assert found.code == "gpu_busy"
    assert "only 2.1 GiB of 23.6 GiB were free" in found.summary


HEALTHY = """time=2026-08-20T10:00:00Z level=INFO source=routes.go:1951 msg="server config" env="map[HTTPS_PROXY: OLLAMA_HOST:x]"
time=2026-08-20T10:00:00Z level=INFO source=images.go:919 msg="total blobs: 12"
time=2026-08-20T10:00:00Z level=INFO source=routes.go:2008 msg="Listening on 127.0.0.1:11434 (version 0.32.15)"
time=2026-08-20T10:00:01Z level=INFO source=types.go:32 msg="inference compute" id=GPU-1 library=CUDA total="23.6 GiB" available="23.2 GiB"
time=2026-08-20T10:00:05Z level=INFO source=llama_server.go:433 msg="starting llama-server" cmd="llama-server -c 16384"
time=2026-08-20T10:00:06Z level=WARN source=ggml.go:104 msg="key not found" key=mistral3.rope.freq_scale default=1
load_tensors: offloaded 41/41 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   360.00 MiB
load_tensors:        CUDA0 model buffer size = 12942.50 MiB
[GIN] 2026/08/20 - 10:00:09 | 200 |  4.455595ms |  127.0.0.1 | POST     "/v1/chat/completions"
"""


@pytest.mark.parametrize("exit_status", [None, 0])
def test_the_log_of_a_server_that_is_well_names_no_cause(exit_status: int | None) -> None:
    assert code(HEALTHY, exit_status) == "unknown"


def test_an_early_warning_does_not_hide_what_stopped_it() -> None:
    log = HEALTHY + 'level=WARN msg="truncating input prompt" limit=2048 prompt=5065\nCUDA error: out of memory\n'
    assert code(log) == "oom_weights"
