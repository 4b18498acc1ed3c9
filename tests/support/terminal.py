"""A terminal of a test's own, in which a person types and reads."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

WAIT_S = 60.0
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_=>])")
CTRL_C, CTRL_D, ENTER = "\x03", "\x04", "\r"


class Terminal:
    """What a program shows on it, and keys for the program."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], folder: Path | None = None) -> None:
        self._ours, theirs = pty.openpty()
        self.child = subprocess.Popen(
            argv, env=env, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self._read = b""
        self._seen = 0

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._ours, keys.encode())

    def paste(self, text: str) -> None:
        """Paste as terminals do: between marks, its line ends as those of a keyboard."""
        marked = text.replace("\n", "\r")
        self.press(f"\x1b[200~{marked}\x1b[201~")

    @property
    def raw(self) -> str:
        """All that was written to it."""
        return self._read.decode(errors="replace")

    @property
    def shown(self) -> str:
        """The same without control sequences."""
        return self.shown_in(self.raw)

    @staticmethod
    def shown_in(written: str) -> str:
        """Of what was written, what is seen."""
        return _CONTROL.sub("", written).replace("\r\n", "\n")

    def read_until(self, found: Callable[[], bool], what: str) -> None:
        """Read on until `found`, or all of what an ended program wrote. Fails with the whole after a minute."""
        deadline = time.monotonic() + WAIT_S
        while not found():
            assert time.monotonic() < deadline, f"not shown: {what}\n{self.shown}"
            assert self._read_some() or found(), f"not shown: {what}\n{self.shown}"

    def until(self, words: str) -> str:
        """What is shown up to `words`, from where the last call ended."""
        self.read_until(lambda: words in self.shown[self._seen :], words)
        end = self.shown.index(words, self._seen) + len(words)
        text, self._seen = self.shown[self._seen : end], end
        return text

    def _read_some(self) -> bool:
        """Read what is there now; False once everybody else has closed the terminal."""
        if select.select([self._ours], [], [], 0.1)[0]:
            try:
                self._read += os.read(self._ours, 65_536)
            except OSError:
                return False
        return True

    def ended(self) -> int:
        """The exit status. What is still shown meanwhile is read: nobody ends who cannot write."""
        deadline = time.monotonic() + WAIT_S
        while self._read_some():
            assert time.monotonic() < deadline, f"it did not end\n{self.shown}"
        return self.child.wait(WAIT_S)

    def close(self) -> None:
        """End what still runs on it."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        os.close(self._ours)


@contextmanager
def on_a_terminal(*args: str, env: Mapping[str, str], width: int = 80) -> Iterator[Terminal]:
    """`mscli ARGS` on a terminal of this width."""
    own = {"TERM": "xterm-256color", "COLUMNS": str(width), "LINES": "24", "PROMPT_TOOLKIT_NO_CPR": "1"}
    made = Terminal([sys.executable, "-m", "mscli", *args], {**env, **own})
    try:
        yield made
    finally:
        made.close()
