"""How a log is read and causes are weighed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscli.diagnosis.causes import CAUSES, UNKNOWN, Facts, weighed
from mscli.diagnosis.diagnose import diagnose, start_failure
from mscli.diagnosis.excerpt import telling

BARE = Facts(
    surroundings="bare", nvml=None, gpus=1, capability=(8, 9), mig=False, visible_devices=None, disk_free_bytes=2**40
)
WRAPPED = """(EngineCore pid=71) ERROR [core.py:1330] EngineCore failed to start.
(EngineCore pid=71) ERROR [core.py:1330] Traceback (most recent call last):
(EngineCore pid=71) ERROR [core.py:1330]   File "/opt/venv/vllm/v1/engine/core.py", line 1320, in run_engine_core
(EngineCore pid=71) ERROR [core.py:1330] ValueError: Free memory on device cuda:0 (2.1/23.5 GiB) on startup is less \
than desired GPU memory utilization (0.9, 21.2 GiB).
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
subprocess.CalledProcessError: Command '['vllm', 'serve']' returned non-zero exit status 1.
"""


def codes(log: str) -> list[str]:
    return [found.code for found in diagnose(log)]


def test_wrapper_errors_are_read_past() -> None:
    found = diagnose(WRAPPED)[0]

    assert found.code == "gpu_busy"
    assert "Free memory on device" in found.evidence[0]
    assert "2.1 of 23.5 GiB" in found.summary


@pytest.mark.parametrize(
    "log",
    ["", "\n\n", "hello\n", "Engine core initialization failed. See root cause above.\n", "exit status 1\n"],
)
def test_what_shows_nothing_is_unknown(log: str) -> None:
    assert diagnose(log) == ()


def test_a_consequence_ranks_below_its_cause() -> None:
    log = (
        'level=INFO source=gpu.go:386 msg="no compatible GPUs were discovered"\n'
        "load_tensors: offloaded 0/41 layers to GPU\n"
        'level=WARN msg="nvml vram init failure: 18"\n'
    )

    assert codes(log)[0] == "nvml_mismatch"
    assert "cpu_fallback" in codes(log)[1:]


def test_of_two_stated_causes_the_first_in_the_log_leads() -> None:
    gated = "GatedRepoError: 403 Client Error. Cannot access gated repo"
    full = "OSError: [Errno 28] No space left on device"

    assert codes(f"{gated}\n{full}")[0] == "hf_gated"
    assert codes(f"{full}\n{gated}")[0] == "disk_full"


def test_more_lines_make_a_cause_surer_and_never_certain() -> None:
    one = "ggml_cuda_init: failed to initialize CUDA: unknown error"
    more = f"{one}\ncuda driver library init failure: 999\ncudaSetDevice err: 999"

    assert diagnose(one)[0].confidence < diagnose(more)[0].confidence < 1


def test_confidences_fall_and_leave_room_for_each_other() -> None:
    found = diagnose("RuntimeError: Failed to infer device type")

    assert [cause.confidence for cause in found] == sorted((cause.confidence for cause in found), reverse=True)
    assert sum(cause.confidence for cause in found) <= 1.01
    assert found[0].confidence < 0.5, "a line that fits several causes is no proof of one"


def test_a_message_that_the_terminal_wrapped_is_whole() -> None:
    wrapped = "After the optional system message, conversation roles must \nalternate user/assistant/user/assistant/..."

    assert diagnose(wrapped)[0].code == "chat_request"
    assert len(diagnose(wrapped)[0].evidence) == 2


def test_colours_progress_bars_and_escaped_quotes_hide_nothing() -> None:
    assert codes("\x1b[31mRuntimeError: CUDA error: \x1b[1muncorrectable ECC error\x1b[0m encountered") == ["ecc"]
    assert codes("model: 41%|████    | 1G/2G\rOSError: [Errno 28] No space left on device")[0] == "disk_full"
    assert codes(json.dumps({"log": '"auto" tool choice requires --enable-auto-tool-choice'})) == ["tools"]


def test_a_repeated_line_is_kept_three_times_and_the_end_whole() -> None:
    ticks = [f"tick {n} took {n * 7} ms" for n in range(2000)]
    kept = telling("\n".join(["first", *ticks, "last"]))

    assert kept[:4] == ["first", *ticks[:3]]
    assert kept[-1] == "last"
    assert len(kept) < 70


def test_a_long_log_is_read_quickly() -> None:
    import time

    log = "".join(f"INFO 11-20 13:4{n % 10} [loggers.py:12] Avg throughput {n}.7 tokens/s\n" for n in range(60_000))
    begin = time.monotonic()

    assert codes(f"RuntimeError: CUDA error: uncorrectable ECC error encountered\n{log}") == ["ecc"]
    assert time.monotonic() - begin < 10


def test_the_figures_of_a_line_are_read() -> None:
    blocks = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
    profiled = "Memory profiling results: total_gpu_memory=79.15GiB initial_memory_usage={}GiB peak_torch_memory=1GiB"

    assert codes(f"{blocks}\n{profiled.format(68.01)}")[0] == "gpu_busy"
    assert codes(f"{blocks}\n{profiled.format(14.2)}")[0] == "oom_kv"


@pytest.mark.parametrize(
    ("code", "facts"),
    [
        ("wsl", {"surroundings": "wsl"}),
        ("no_driver", {"nvml": "DRIVER_NOT_LOADED"}),
        ("nvml_mismatch", {"nvml": "LIB_RM_VERSION_MISMATCH"}),
        ("nvml_not_found", {"nvml": "LIBRARY_NOT_FOUND"}),
        ("mig", {"mig": True}),
        ("visible_devices", {"visible_devices": "3"}),
        ("p2p", {"gpus": 2}),
    ],
)
def test_the_machine_raises_or_lowers_a_cause(code: str, facts: dict[str, object]) -> None:
    from dataclasses import replace

    bearing = replace(BARE, **facts)  # type: ignore[arg-type]

    assert weighed(code, 0.5, BARE) < weighed(code, 0.5, bearing)
    assert 0 < weighed(code, 0.98, bearing) < 1
    assert weighed(code, 0.5, None) == 0.5


def test_facts_turn_the_order_of_causes_that_a_line_leaves_open() -> None:
    from dataclasses import replace

    line = "RuntimeError: Failed to infer device type"

    assert diagnose(line, facts=replace(BARE, surroundings="wsl", nvml="UNKNOWN", gpus=0))[0].code == "wsl"
    assert diagnose(line, facts=replace(BARE, nvml="DRIVER_NOT_LOADED", gpus=0))[0].code == "no_driver"


def test_remedies_hold_no_braces_left_over() -> None:
    assert [code for code, words in CAUSES.items() if any("{{" in text for text in words)] == []


REAL = sorted((Path(__file__).parent / "real").rglob("*.log"))
REAL_LINES = sorted({line for path in REAL for line in path.read_text(errors="replace").splitlines()})[::7]
NOISE = st.text(max_size=60) | st.sampled_from(
    ("\x1b[31m", "\r", "\0", "\ud800", "[" * 3000, "Error: ", "x" * 20_000, '{"log":"')
)
LINES = st.lists(st.sampled_from(REAL_LINES or ["x"]) | NOISE, max_size=12)
ENGINES = st.sampled_from((None, "llama.cpp", "ollama", "vllm", "vllm-docker", "transformers", "mistral.rs"))


@given(lines=LINES, cut=st.integers(0, 400), engine=ENGINES, status=st.none() | st.integers(-64, 255))
def test_any_log_has_causes_of_the_list(lines: list[str], cut: int, engine: str | None, status: int | None) -> None:
    log = "\n".join(lines)[cut:]
    known = {*CAUSES, UNKNOWN}
    assert {cause.code for cause in diagnose(log, engine)} <= known
    cause = start_failure(log, engine or "vllm", status)
    assert cause.code in known
    assert cause.summary
