"""Causes of failed starts, by published logs and by what the engine says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mscli.diagnosis.diagnose import start_failure

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text().splitlines()]
PANIC = "called `Result::unwrap()` on an `Err` value: RecvError"

SAID = (
    ("ValueError: missing field `hidden_size` at line 22 column 1", "tokenizer_format"),
    ('called `Result::unwrap()` on an `Err` value: Error("invalid type: map, expected usize", line: 9)', "vision"),
    ("error: could not listen on 127.0.0.1:1234: Address already in use", "port"),
    ("Error: Address already in use (os error 98)", "port"),
    ("error: unexpected argument '--jinja-explict' found", "cli_flags"),
    ("ValueError: `/nope` looks like a local path, but that path does not exist.", "model_not_found"),
    ('DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")', "oom_weights"),
    ('DriverError(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected")', "visible_devices"),
    ("Error: SafetensorError(MetadataIncompleteBuffer)", "corrupt_weights"),
    ("memory allocation of 1073741824 bytes failed", "host_ram"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_a_published_log_gives_its_cause(case: dict[str, Any]) -> None:
    assert start_failure(case["log"], "mistralrs", 1).code == case["category"]


@pytest.mark.parametrize(("line", "code"), SAID, ids=[f"{code}-{n}" for n, (_, code) in enumerate(SAID)])
def test_a_telling_line_gives_its_cause_although_a_panic_follows(line: str, code: str) -> None:
    found = start_failure(f"INFO loading\n{line}\n{PANIC}\n", "mistralrs", 101)

    assert found.code == code, found
    assert found.remedy


def test_colours_do_not_hide_a_sign() -> None:
    log = "\x1b[31mERROR\x1b[0m \x1b[2mmissing field\x1b[0m `hidden_size`"

    assert start_failure(log, "mistralrs", 1).code == "tokenizer_format"
