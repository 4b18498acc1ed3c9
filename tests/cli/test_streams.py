"""Standard streams that are closed, full or gone: the work is done all the same, and the exit code says so."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.run_mscli import Mscli

from mscli.instances import process

MSCLI = f"{sys.executable} -m mscli"
FULL = Path("/dev/full")


@pytest.fixture
def shell(user_env: dict[str, str]) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a shell line in which `mscli` is the program."""

    def run(line: str) -> subprocess.CompletedProcess[str]:
        script = f'mscli() {{ {MSCLI} "$@"; }}\n{line}'
        return subprocess.run(["bash", "-c", script], env=user_env, capture_output=True, text=True, timeout=120)

    return run


Shell = Callable[[str], "subprocess.CompletedProcess[str]"]
# How the streams are -> the exit code of a command that did its work and had something to say.
STREAMS = {
    "2>&-": 0, ">&-": 1, "<&-": 0, ">&- 2>&-": 1, ">&- 2>&- <&-": 1,
    ">/dev/full": 1, "2>/dev/full": 0, ">/dev/full 2>/dev/full": 1, "| true": 0, "2>&1 | true": 0,
}  # fmt: skip


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("streams", STREAMS)
def test_down_stops_whatever_the_streams_are(streams: str, shell: Shell, mscli: Mscli) -> None:
    pid = mscli("up", "rehearsal", "--json").data["instance"]["pid"]
    ended = shell(f"set -o pipefail\nmscli down rehearsal {streams}")
    assert ended.returncode == STREAMS[streams], ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    left = process.stat(pid)
    assert left is None or left.state == "Z"
    assert mscli("status").code == 3


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "command", ["gpus", "profiles", "plan", "--help", "up --help", "--version", "status --json", "engines"]
)
def test_output_that_cannot_be_written_is_told_once(command: str, shell: Shell) -> None:
    full, closed = shell(f"mscli {command} >/dev/full"), shell(f"mscli {command} >&-")
    for ended in (full, closed):
        assert ended.returncode in (1, 3, 4)
        assert "Traceback" not in ended.stderr
        assert "Exception ignored" not in ended.stderr
    assert "cannot write to standard output: No space left on device" in full.stderr


def test_up_starts_with_every_stream_closed(shell: Shell, mscli: Mscli) -> None:
    shell("mscli up rehearsal >&- 2>&- <&-")
    seen = mscli("status", "--json").data["instances"]
    assert [instance["state"] for instance in seen] == ["ready"]
    assert "listening" in mscli("logs").out, "the engine's log is its log"


def test_a_terminal_that_is_latin_1_is_no_fault(mscli: Mscli) -> None:
    for command in ("gpus", "plan", "profiles", "doctor --only host"):
        ran = mscli(*command.split(), env={"PYTHONIOENCODING": "latin-1"})
        assert ran.code in (0, 4, 5), ran.err
        assert "internal error" not in ran.err


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.1, 0.3])
def test_ctrl_c_with_json_prints_its_envelope(after_s: float, user_env: dict[str, str]) -> None:
    """From the moment on at which code of ours runs: that its first import has ended is the sign."""
    argv = [sys.executable, "-X", "importtime", "-m", "mscli", "doctor", "--json"]
    child = subprocess.Popen(argv, env=user_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if line.rstrip().endswith(" mscli.cli"):
            break
    time.sleep(after_s)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    if child.returncode == 0:  # it was faster
        return
    assert "Traceback" not in err
    envelope = json.loads(out)
    assert (envelope["ok"], envelope["error"]["code"], child.returncode) == (False, "interrupted", 130)
