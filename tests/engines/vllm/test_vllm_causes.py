"""Causes of failed starts, by published logs and by the telling lines of the real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mscli.diagnosis.diagnose import start_failure

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text().splitlines()]
DEAD = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"

# What vLLM 0.32 itself wrote, and where its last line names something else.
SAID = (
    ("OSError: [Errno 98] Address already in use", "port", "--port"),
    (
        "vllm serve: error: argument --limit-mm-per-prompt: Value image=10 cannot be converted to <function loads>.",
        "cli_flags",
        "options",
    ),
    ("vllm: error: unrecognized arguments: --enable-reasoning", "cli_flags", "options"),
    ("KeyError: 'invalid tool call parser: nope (chose from {mistral})'", "cli_flags", "options"),
    ("KeyError: \"Reasoning parser 'nope' not found. Available parsers: mistral\"", "cli_flags", "options"),
    ("ValueError: Load format `nope` is not supported. Supported load formats are auto", "cli_flags", "options"),
    ("Unknown quantization method: bitsandbytes. Must be one of ['awq']", "cli_flags", "options"),
    ("Input should be less than or equal to 1 [type=less_than_equal, input_value=1.5]", "cli_flags", "options"),
    ("TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser", "tools", "--tool-call-parser"),
    (
        "Value error, User-specified max_model_len (200000) is greater than the derived max_model_len "
        "(max_position_embeddings=131072.0 or model_max_length=None in model's config.json).",
        "cli_flags",
        "--ctx 131072",
    ),
    (
        "ValueError: Total number of attention heads (4) must be divisible by tensor parallel size (3).",
        "tp_divisibility",
        "--gpus",
    ),
    ("OSError: Repo id must be in the form 'repo_name': '/srv/models/nope'. Use", "model_not_found", "mscli profiles"),
    ("LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder", "offline", "mscli pull"),
    ("Failed to load mistral 'params.json' config for model x. Please check", "tokenizer_format", "three flags"),
    ("Unrecognized model in /weights/it. Should have a `model_type` key in", "tokenizer_format", "three flags"),
    ("ValueError: No tokenizer file found.", "tokenizer_format", "three flags"),
    (
        "TypeError: GrammarFactory.get_lark_from_jinja() missing 1 required positional argument: 'force_tool_names'",
        "mistral_common",
        "mistral_common==1.12.0",
    ),
    ("ImportError: Numba needs NumPy 2.2 or less. Got NumPy 2.3.", "python_env", "numpy<=2.2.99"),
    (
        "ValueError: 'aimv2' is already used by a Transformers config, pick another name.",
        "python_env",
        "transformers<4.54",
    ),
    (
        "AttributeError: TokenizersBackend has no attribute all_special_tokens_extended. Did you mean: 'x'?",
        "python_env",
        "transformers<5",
    ),
    ("ModuleNotFoundError: No module named 'mistral_common.guidance'", "mistral_common", "Reinstall mistral_common"),
    (
        "RuntimeError: flashinfer-cubin version (0.6.13) does not match flashinfer version (0.6.14). Please install",
        "python_env",
        "uninstall flashinfer-cubin",
    ),
    ("RuntimeError: operator torchvision::nms does not exist", "torch_abi", "engines install"),
    (
        "ValueError: Available memory on node 0 (11.14/12.59 GiB) on kv cache allocation is less than requested memory "
        "for kv (100.0 GiB). Decrease --kv-cache-memory-bytes",
        "host_ram",
        "--ctx",
    ),
    ("ValueError: invalid literal for int() with base 10: 'GPU-441f29f8-b53a'", "visible_devices", "0.24"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_published_logs_are_named(case: dict[str, Any]) -> None:
    found = start_failure(case["log"], "vllm", 1)
    assert found.code == case["category"], found


@pytest.mark.parametrize(("line", "code", "hint"), SAID, ids=[line[:40] for line, _, _ in SAID])
def test_what_the_engine_says_is_named_below_its_wrapper(line: str, code: str, hint: str) -> None:
    found = start_failure(f"INFO something\nERROR {line}\nERROR WorkerProc failed to start.\n{DEAD}\n", "vllm", 1)
    assert (found.code, hint in found.remedy) == (code, True), found
    assert line in found.evidence[0]


def test_a_context_that_does_not_fit_names_the_one_that_does() -> None:
    log = (
        "ValueError: To serve at least one request with the model's max seq len (131072), (20.0 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (0.98 GiB). Based on it, the estimated "
        f"maximum model length is 6400. Try increasing `gpu_memory_utilization`\n{DEAD}"
    )
    found = start_failure(log, "vllm", 1)
    assert found.code == "oom_kv"
    assert "131072" in found.summary
    assert "0.98 GiB hold 6400" in found.summary
    assert found.remedy.startswith("Use at most --ctx 6400.")


def test_memory_that_runs_out_after_the_weights_is_not_the_weights() -> None:
    gone = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert start_failure(gone, "vllm", 1).code == "oom_weights"
    assert start_failure(f"INFO Model loading took 14.9 GiB memory and 8 seconds\n{gone}", "vllm", 1).code == "oom_kv"


def test_a_warning_of_every_start_is_no_cause() -> None:
    log = (
        "WARNING [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase. This can cause fd "
        "limit errors like `OSError: [Errno 24] Too many open files`. Consider increasing with ulimit -n"
    )
    assert start_failure(log, "vllm", None).code == "unknown"


def test_what_nothing_supports_stays_unknown_with_the_errors_as_evidence() -> None:
    found = start_failure(f"INFO fine\nERROR something new: the flux is inverted\n{DEAD}", "vllm", 1)
    assert found.code == "unknown"
    assert found.evidence == ("ERROR something new: the flux is inverted",)


def test_killed_by_the_kernel_is_ram() -> None:
    assert start_failure("INFO Starting to load model\n", "vllm", -9).code == "host_ram"
