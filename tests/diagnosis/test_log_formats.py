"""A log is read the same, however it was carried here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mscli.diagnosis.diagnose import diagnose
from mscli.diagnosis.log import read_log, telling

LINES = (
    "INFO 11-20 13:41:02 [api_server.py:1755] vLLM API server version 0.10.0",
    "Loading model ...",
    "Killed",
    'ERROR [serving_chat.py:42] "auto" tool choice requires --enable-auto-tool-choice',
    "\x1b[31mRuntimeError: CUDA error: uncorrectable ECC error encountered\x1b[0m",
)


def docker(lines: tuple[str, ...]) -> str:
    """As in /var/lib/docker/containers/*/*-json.log; the last line cut into two records."""
    whole = [*(f"{line}\n" for line in lines[:-1]), lines[-1][:20], f"{lines[-1][20:]}\n"]
    records = ({"log": line, "stream": "stderr", "time": "2026-11-20T13:41:02.1Z"} for line in whole)
    return "\n".join(map(json.dumps, records))


def journal(lines: tuple[str, ...]) -> str:
    """As `journalctl -o json` prints; the line with escape sequences as bytes."""
    said = [list(line.encode()) if "\x1b" in line else line for line in lines]
    records = ({"MESSAGE": line, "_SYSTEMD_UNIT": "vllm.service", "PRIORITY": "6"} for line in said)
    return "\n".join(map(json.dumps, records))


CARRIED = {
    "Docker's files": docker(LINES),
    "journald's records": journal(LINES),
    "Compose": "\n".join(f"vllm-1  | {line}" for line in LINES),
    "kubectl logs --prefix": "\n".join(f"[pod/vllm-7c9/server] {line}" for line in LINES),
    "containerd's files": "\n".join(f"2026-11-20T13:41:02.123456789Z stderr F {line}" for line in LINES),
    "Windows": "\r\n".join(LINES),
}


@pytest.mark.parametrize("log", CARRIED.values(), ids=CARRIED)
def test_every_wrapping_is_taken_off(log: str) -> None:
    assert telling(log) == telling("\n".join(LINES))


@pytest.mark.parametrize("log", CARRIED.values(), ids=CARRIED)
def test_the_causes_do_not_depend_on_the_wrapping(log: str) -> None:
    plain = [(found.code, found.confidence) for found in diagnose("\n".join(LINES))]

    assert len(plain) == 3
    assert [(found.code, found.confidence) for found in diagnose(log)] == plain


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-8"])
def test_what_powershell_writes_is_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "vllm.log"
    path.write_bytes("\r\n".join(LINES).encode(encoding))

    text, cut = read_log(path)

    assert text.splitlines() == list(LINES)
    assert not cut


def test_the_end_of_a_long_utf16_log_is_text(tmp_path: Path) -> None:
    path = tmp_path / "vllm.log"
    path.write_bytes(("tick\r\n" * 4_500_000 + LINES[-1]).encode("utf-16"))

    text, cut = read_log(path)

    assert cut
    assert text.endswith(LINES[-1])


def test_answers_and_tables_are_no_wrapping() -> None:
    answer = '{"error":{"message":"model \'mistral\' not found, try pulling it first"}}'
    table = "|   0  NVIDIA GeForce RTX 4090 | 00000000:01:00.0 Off |"

    assert telling(answer) == [answer]
    assert telling(f"{table}\n{table} ") == [table, table]
