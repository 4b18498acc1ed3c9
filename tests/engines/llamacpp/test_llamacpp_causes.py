"""Logs of failures that need a GPU to happen, in llama.cpp's own wording, and what follows the telling line."""

from __future__ import annotations

import pytest

from mscli.diagnosis.diagnose import start_failure

BEGIN = "0.00.000.001 I srv          init: initializing ...\n"
END = """
0.03.001.001 E common_init_from_params: failed to load model, try reducing --n-gpu-layers
0.03.001.002 E srv    load_model: failed to load model, '/models/m.gguf'
0.03.001.003 I srv    operator(): operator(): cleaning up before exit...
0.03.001.004 E main: exiting due to model loading error
"""
ALLOCATING = (
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 20480.00 MiB on device 0: cudaMalloc failed: out of memory"
)
NO_INIT = "ggml_cuda_init: failed to initialize CUDA:"
NO_LIBRARY = "llama-server: error while loading shared libraries:"

LOGS = {
    "weights on the GPU": (
        "oom_weights",
        f"""{ALLOCATING}
alloc_tensor_range: failed to allocate CUDA0 buffer of size 13948534784
llama_model_load: error loading model: unable to allocate CUDA0 buffer""",
    ),
    "weights in RAM": (
        "host_ram",
        """alloc_tensor_range: failed to allocate CPU buffer of size 437944320
llama_model_load: error loading model: unable to allocate CPU buffer""",
    ),
    "the KV cache on the GPU": ("oom_kv", f"{ALLOCATING}\nllama_kv_cache_init: failed to allocate buffer for kv cache"),
    "the compute buffer on the GPU": (
        "oom_weights",
        f"""{ALLOCATING}
ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 9332334592
graph_reserve: failed to allocate compute buffers""",
    ),
    "an old driver": (
        "driver_too_old",
        f"""{NO_INIT} CUDA driver version is insufficient for CUDA runtime version
warning: no usable GPU found, --gpu-layers option will be ignored""",
    ),
    "PTX of a later CUDA": (
        "driver_too_old",
        "CUDA error: the provided PTX was compiled with an unsupported toolchain.",
    ),
    "cuda-compat": ("driver_vs_compat", f"{NO_INIT} system has unsupported display driver / cuda driver combination"),
    "hidden GPUs": ("visible_devices", f"{NO_INIT} no CUDA-capable device is detected"),
    "after a suspend": ("suspend", f"{NO_INIT} unknown error"),
    "an unknown architecture of GPU": (
        "cuda_arch",
        "CUDA error: no kernel image is available for execution on the device\n  current device: 0",
    ),
    "broken GPU memory": ("ecc", "CUDA error: uncorrectable ECC error encountered"),
    "no GPU code": ("backend_no_gpu_build", "warning: no usable GPU found, --gpu-layers option will be ignored"),
    "a library of CUDA": ("engine_missing", f"{NO_LIBRARY} libcudart.so.12: cannot open shared object file"),
    "the driver's library": ("nvml_not_found", f"{NO_LIBRARY} libcuda.so.1: cannot open shared object file"),
}


@pytest.mark.parametrize(("code", "lines"), LOGS.values(), ids=LOGS)
def test_the_line_that_names_the_mechanism_decides(code: str, lines: str) -> None:
    found = start_failure(f"{BEGIN}{lines}{END}", "llamacpp", 1)

    assert found.code == code
    assert lines.splitlines()[0] in found.evidence


@pytest.mark.parametrize(("status", "code"), [(-9, "host_ram"), (-4, "build"), (-15, "unknown"), (1, "unknown")])
def test_a_silent_end_is_told_by_its_status(status: int, code: str) -> None:
    assert start_failure(BEGIN, "llamacpp", status).code == code


def test_an_unknown_error_shows_its_lines_and_not_the_wrapper() -> None:
    found = start_failure(f"{BEGIN}0.00.000.002 E something: new failed{END}", "llamacpp", 1)

    assert found.code == "unknown"
    assert found.evidence[0] == "0.00.000.002 E something: new failed"
    assert not any("exiting due to" in line for line in found.evidence)
