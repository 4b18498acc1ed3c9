"""mscli on a terminal of a test's own, of any width."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable

WAIT_S = 60.0


def on_a_terminal(width: int, *args: str, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "mscli", *args], env={**env, "COLUMNS": str(width), "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    return child, ours


def read_until(terminal: int, found: Callable[[str], bool], shown: str = "") -> str:
    end = time.monotonic() + WAIT_S
    while not found(shown) and time.monotonic() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                shown += os.read(terminal, 65536).decode()
            except OSError:  # closed
                return shown
    return shown
