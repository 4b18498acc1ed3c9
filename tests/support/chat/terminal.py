"""A terminal of the test's own, in which a person types."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

_DEADLINE_S = 60.0
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_=>])")
CTRL_C, CTRL_D, ENTER = "\x03", "\x04", "\r"


class Terminal:
    """What `mscli` shows, and keys for it."""

    def __init__(self, child: subprocess.Popen[bytes], master: int) -> None:
        self.child, self._master = child, master
        self._raw = b""
        self._seen = 0

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def paste(self, text: str) -> None:
        """Paste as terminals do: between marks, its line ends as those of a keyboard."""
        marked = text.replace("\n", "\r")
        self.press(f"\x1b[200~{marked}\x1b[201~")

    @property
    def shown(self) -> str:
        """All that was shown, without control sequences."""
        return _CONTROL.sub("", self._raw.decode(errors="replace"))

    def until(self, words: str) -> str:
        """What is shown up to `words`, from where the last call ended. Fails with the whole after a minute."""
        deadline = time.monotonic() + _DEADLINE_S
        while words not in self.shown[self._seen :]:
            assert time.monotonic() < deadline, f"never shown: {words!r}\n{self.shown}"
            self._read()
        end = self.shown.index(words, self._seen) + len(words)
        text, self._seen = self.shown[self._seen : end], end
        return text

    def _read(self) -> None:
        if select.select([self._master], [], [], 0.1)[0]:
            with suppress(OSError):
                self._raw += os.read(self._master, 65_536)

    def ended(self) -> int:
        """The exit status. What is still shown meanwhile is read: nobody ends who cannot write."""
        deadline = time.monotonic() + _DEADLINE_S
        while self.child.poll() is None:
            assert time.monotonic() < deadline, f"it did not end\n{self.shown}"
            self._read()
        return self.child.returncode


@contextmanager
def terminal(*args: str, env: Mapping[str, str]) -> Iterator[Terminal]:
    """`mscli ARGS` on a terminal of 80x24."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "mscli", *args], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env={**env, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", "PROMPT_TOOLKIT_NO_CPR": "1"},
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(child, master)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        os.close(master)
