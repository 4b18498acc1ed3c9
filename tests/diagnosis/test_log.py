"""A log is read the same, however it was carried here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mscli.diagnosis.diagnose import diagnose
from mscli.diagnosis.excerpt import excerpt, telling
from mscli.diagnosis.log import read_log

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


def short(lines: tuple[str, ...], unit: str = "vllm[812]") -> str:
    """As `journalctl` prints."""
    return "\n".join(f"Nov 20 13:41:0{n} gpu01 {unit}: {line}" for n, line in enumerate(lines))


PASTED = {
    "a fence": "```text\n" + "\n".join(LINES) + "\n```",
    "a fence behind words": "It fails at once:\n\n```\n" + "\n".join(LINES) + "\n```\n",
    "a quote": "\n".join(f"> {line}" for line in LINES),
    "a quoted quote": "\n".join(f"> > {line}" for line in LINES),
    "an indented block": "\n".join(f"    {line}" for line in LINES),
    "details": "<details><summary>Log</summary>\n\n```\n" + "\n".join(LINES) + "\n```\n</details>",
    "docker logs -t": "\n".join(f"2026-11-20T13:41:02.12345678{n}Z {line}" for n, line in enumerate(LINES)),
    "journalctl": short(LINES),
    "journalctl -o short-iso": "\n".join(f"2026-11-20T13:41:02+0100 gpu01 vllm[812]: {line}" for line in LINES),
    "journalctl, quoted": "\n".join(f"> {line}" for line in short(LINES).splitlines()),
    "Compose with times": "\n".join(f"vllm-1  | 2026-11-20T13:41:02.123456789Z {line}" for line in LINES),
    "Compose in color": "\n".join(f"\x1b[36mvllm-1  |\x1b[0m {line}" for line in LINES),
    "colors that lost their escape character": "\n".join(f"[1;31m{line}[0m" for line in LINES),
    "colors in carets": "\n".join(f"^[[31m{line}^[[0m" for line in LINES),
}


@pytest.mark.parametrize("log", PASTED.values(), ids=PASTED)
def test_the_causes_do_not_depend_on_how_it_was_pasted(log: str) -> None:
    plain = [(found.code, found.confidence) for found in diagnose("\n".join(LINES))]

    assert [(found.code, found.confidence) for found in diagnose(log)] == plain


def test_what_the_kernel_says_in_a_journal_stays_its_word() -> None:
    line = "NVRM: Xid (PCI:0000:01:00): 79, pid=812, GPU has fallen off the bus."

    assert telling(short((line, line, line, line), "kernel"))[0].endswith(f"kernel: {line}")


def test_several_logs_in_one_are_read_by_what_wrote_each() -> None:
    ollama = 'level=WARN source=ggml.go:1 msg="a"\nlevel=INFO source=routes.go:1288 msg="server config"'
    vllm = "INFO [api_server.py:1] vLLM API server version 0.10\nvllm: error: unrecognized arguments: --num-ctx 4096"
    both = f"==> ollama.log <==\n{ollama}\n\n==> vllm.log <==\n{vllm}\n"

    found = diagnose(both)[0]

    assert found.code == "cli_flags"
    assert "vLLM" in found.summary


def test_a_log_that_serves_does_not_excuse_another_that_failed() -> None:
    failed = "INFO [api_server.py:1] vLLM API server\nOSError: [Errno 28] No space left on device"
    serves = "INFO [api_server.py:1] vLLM API server\nINFO:     Application startup complete."

    assert diagnose(f"```\n{failed}\n```\n\n```\n{serves}\n```")[0].scope == "start"
    assert diagnose(f"{failed}\n{serves}")[0].scope == "warning"


def test_the_first_error_of_a_long_log_is_found_between_its_ends() -> None:
    quiet = [
        f"INFO [x.py:{n}] step {chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)} done"
        for n in range(30_000)
    ]
    taken = excerpt("\n".join([*quiet[:15_000], "OSError: [Errno 28] No space left on device", *quiet[15_000:]]))

    assert taken.cut
    assert len(taken.lines) < 10_000
    assert diagnose(taken)[0].code == "disk_full"


def test_a_file_in_brackets_is_no_color() -> None:
    line = "ERROR 11-30 12:37:39 [mistral.py:44] An error occurred in `mistral_common`"

    assert telling(f"\x1b[31m{line}\x1b[m") == [line]
    assert telling(f"[0;31m{line}[m") == [line]


HUNDRED_MB = """
import io, resource, sys
from mscli.diagnosis.diagnose import diagnose
from mscli.diagnosis.excerpt import excerpt_of
diagnose("warm")
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
class Stream(io.RawIOBase):
    left = int(sys.argv[1]) * 2**20
    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        line = b"INFO step %08x of a long log that says nothing\\n" % self.left
        return (line * (size // len(line) + 1))[:size]
diagnose(excerpt_of(Stream()))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - used)
"""


def test_a_log_of_any_length_takes_the_same_memory() -> None:
    small, large = (
        int(subprocess.run([sys.executable, "-c", HUNDRED_MB, mb], capture_output=True, text=True, check=True).stdout)
        for mb in ("4", "100")
    )

    assert large < small + 24 * 2**20
