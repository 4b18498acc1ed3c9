"""What vLLM's log tells of a start, in the words of several versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from mscli.engines.engine import LOADING, STARTING
from mscli.engines.vllm.engine import Vllm

GIB = 2**30
TWO_GPUS = """\
(EngineCore pid=9) INFO 11-20 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: max_seq_len=65536, x=1
(Worker_TP0 pid=1) INFO 11-20 [gpu_model_runner.py:5150] Model loading took 22.39 GiB memory and 8.1 seconds
(Worker_TP1 pid=2) INFO 11-20 [gpu_model_runner.py:5150] Model loading took 22.39 GiB memory and 8.2 seconds
(Worker_TP0 pid=1) INFO 11-20 [gpu_worker.py:760] Available KV cache memory: 5.50 GiB
(Worker_TP1 pid=2) INFO 11-20 [gpu_worker.py:760] Available KV cache memory: 5.50 GiB
(EngineCore pid=9) INFO [kv_cache_utils.py:2327] GPU KV cache size: 72,080 tokens, Maximum concurrency for 65,536 \
tokens per request: 1.10x
"""
OLD = """\
INFO 03-23 [core.py:53] Initializing a V1 LLM engine (v0.8.1) with config: model='m', max_seq_len=8192, dtype=x
INFO 03-23 [gpu_model_runner.py:1176] Model loading took 14.9888 GB and 4.2 seconds
INFO 03-23 [kv_cache_utils.py:537] GPU KV cache size: 36,864 tokens
INFO 03-23 [kv_cache_utils.py:540] Maximum concurrency for 8,192 tokens per request: 4.50x
"""


def test_two_workers_are_added_up() -> None:
    seen = Vllm().observe(TWO_GPUS)
    assert (seen.weights_bytes, seen.kv_bytes) == (round(44.78 * GIB), 11 * GIB)
    assert (seen.context, seen.kv_tokens, seen.max_concurrency) == (65536, 72080, 1.1)


def test_the_words_of_an_old_version() -> None:
    seen = Vllm().observe(OLD)
    assert (seen.weights_bytes, seen.kv_bytes) == (round(14.9888 * GIB), None)
    assert (seen.context, seen.kv_tokens, seen.max_concurrency) == (8192, 36864, 4.5)


def test_a_context_that_was_fitted_is_the_one_served() -> None:
    log = "INFO Using max model len 131072\nINFO Maximum concurrency for 6,400 tokens per request: 1.00x\n"
    assert Vllm().observe(log).context == 6400


def test_a_log_that_tells_nothing() -> None:
    seen = Vllm().observe("INFO hello\n")
    assert (seen.context, seen.weights_bytes, seen.kv_tokens) == (None, None, None)


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("INFO [api_utils.py:286] non-default args: {'model': 'm'}", STARTING),
        ("INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: load_format=mistral", STARTING),
        ("INFO [gpu_model_runner.py:68] Starting to load model /weights/it...", LOADING),
        ("Loading safetensors checkpoint shards:  50% Completed | 5/10 [00:03<00:03,  1.55it/s]", LOADING),
        ("INFO:     127.0.0.1:50000 - \"GET /health HTTP/1.1\" 200 OK", None),
    ],
)  # fmt: skip
def test_lines_announce_stages(line: str, stage: str | None) -> None:
    assert Vllm().stage(line) == stage


def test_the_log_of_a_real_start_on_the_cpu() -> None:
    seen = Vllm().observe((Path(__file__).parent / "start-0.32.0-cpu.log").read_text())
    assert (seen.context, seen.kv_tokens, seen.max_concurrency, seen.kv_bytes) == (2048, 1048576, 512.0, GIB)


def test_a_start_is_told_step_by_step() -> None:
    log = (Path(__file__).parent / "start-0.32.0-cpu.log").read_text()
    assert [step for line in log.splitlines() if (step := Vllm().step(line))] == [
        "vLLM 0.32.0 has been imported",
        "PixtralForConditionalGeneration: starting the engine's processes",
        "loading the weights",
        "weights: file 0/1, 0 %",
        "weights: file 1/1, 100 %",
        "weights took 0.02 seconds",
        "KV cache of 1,048,576 tokens; warming up",
        "opening the port",
    ]


def test_workers_of_one_group_are_told_once() -> None:
    steps = [step for line in TWO_GPUS.splitlines() if (step := Vllm().step(line))]
    assert steps == [
        "weights took 22.39 GiB",
        "5.50 GiB are left for the KV cache",
        "KV cache of 72,080 tokens; warming up",
    ]
