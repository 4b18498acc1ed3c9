"""Causes of failed starts, by published logs and by what the libraries say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mscli.diagnosis.diagnose import start_failure

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text().splitlines()]
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 320.00 MiB. GPU 0 has a total capacity of 23.64 GiB"
)

SAID = (
    ("error: could not listen on 127.0.0.1:8000: Address already in use", "port", "--port"),
    ("[Errno 98] error while attempting to bind on address ('127.0.0.1', 8000)", "port", "--port"),
    ("transformers_server: error: unrecognized arguments: --no-such-flag", "cli_flags", "options"),
    (
        "OSError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/nope'",
        "model_not_found",
        "mscli pull",
    ),
    ("OSError: /models/x does not appear to have a file named config.json.", "model_not_found", "mscli pull"),
    ("AssertionError: Torch not compiled with CUDA enabled", "backend_no_gpu_build", "install"),
    ("RuntimeError: operator torchvision::nms does not exist", "torch_abi", "install"),
    ("ImportError: PixtralProcessor requires the Torchvision library but it was not found", "python_env", "install"),
    ("ModuleNotFoundError: No module named 'accelerate'", "python_env", "install"),
    (
        "TypeError: MistralForCausalLM.__init__() got an unexpected keyword argument 'load_in_4bit'",
        "transformers_api",
        "",
    ),
    (
        "ValueError: Unrecognized configuration class <Mistral3Config> for this kind of AutoModel",
        "transformers_api",
        "",
    ),
    ("ValueError: Some modules are dispatched on the CPU or the disk. Make sure you have", "oom_weights", "mscli plan"),
    (OOM, "oom_weights", "mscli plan"),
    ('placed weights: {"cuda:0": 1}\nerror: OutOfMemoryError: CUDA out of memory.', "oom_kv", "--ctx"),
    ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "host_ram", "RAM"),
    ("RuntimeError: Found no NVIDIA driver on your system.", "no_driver", "nvidia-smi"),
    ("OSError: [Errno 28] No space left on device", "disk_full", "df -h"),
    ("PermissionError: [Errno 13] Permission denied: '/models/config.json'", "permissions", "namei"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_a_published_log_gives_its_cause(case: dict[str, Any]) -> None:
    found = start_failure(case["log"], "transformers", 1)

    assert found.code == case["category"], found


@pytest.mark.parametrize(("line", "code", "hint"), SAID, ids=[f"{line[1]}-{n}" for n, line in enumerate(SAID)])
def test_a_telling_line_gives_its_cause_in_the_midst_of_a_traceback(line: str, code: str, hint: str) -> None:
    log = f'loading /models/x\nTraceback (most recent call last):\n  File "x.py", line 1, in f\n{line}\n'
    found = start_failure(log, "transformers", 1)

    assert found.code == code, found
    assert hint in found.remedy
    assert found.evidence[0] in log


@pytest.mark.parametrize(("status", "code"), [(-9, "host_ram"), (-4, "build"), (1, "unknown"), (None, "unknown")])
def test_without_a_sign_the_exit_status_tells_what_it_can(status: int | None, code: str) -> None:
    assert start_failure("loading /models/x\n", "transformers", status).code == code


def test_a_log_that_says_nothing_known_is_not_explained_but_quoted() -> None:
    found = start_failure("loading\nFrobnicationError: the flux is out of phase\n", "transformers", 1)

    assert found.code == "unknown"
    assert "flux" in found.evidence[0]
