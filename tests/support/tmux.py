"""A real terminal in which a test types and reads: tmux, with its own screen, scrollback, pastes and resizes."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

WAIT_S = 60.0
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not here")


class Tmux:
    """One window of a tmux server of its own. `folder`: for its files."""

    def __init__(self, argv: list[str], env: Mapping[str, str], folder: Path, width: int, height: int) -> None:
        self._socket = str(folder / "tmux")
        script, self._news = folder / "run.sh", folder / "news"
        kept = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
        # What is shown when the program has ended is still to be read.
        script.write_text(
            f"trap : INT\nenv -i {kept} TERM=screen-256color {shlex.join(argv)}\necho ended with $?\nexec sleep 600\n"
        )
        os.mkfifo(self._news)
        self._reader = os.open(self._news, os.O_RDONLY | os.O_NONBLOCK)
        self.run("new-session", "-d", "-x", str(width), "-y", str(height), "sh")
        self.run("set-option", "-g", "status", "off")
        self.run("pipe-pane", f"exec cat >{shlex.quote(str(self._news))}")
        self.run("respawn-pane", "-k", f"sh {shlex.quote(str(script))}")

    def run(self, *words: str, given: str | None = None) -> str:
        """One command of tmux, and what it prints."""
        return subprocess.run(
            ["tmux", "-f", "/dev/null", "-S", self._socket, *words], input=given, capture_output=True, text=True,
            check=True, timeout=WAIT_S,
        ).stdout  # fmt: skip

    def keys(self, *keys: str) -> None:
        """Press keys by tmux's names: Enter, C-c, Up."""
        self.run("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type text and Enter."""
        self.run("send-keys", "-l", text)
        self.keys("Enter")

    def paste(self, text: str) -> None:
        """Paste, between marks where the program asks for them."""
        self.run("load-buffer", "-", given=text)
        self.run("paste-buffer", "-p")

    def resize(self, width: int, height: int = 24) -> None:
        """Make the window so large."""
        self.run("resize-window", "-x", str(width), "-y", str(height))

    @property
    def screen(self) -> str:
        """What is seen now."""
        return self.run("capture-pane", "-p").rstrip("\n")

    @property
    def whole(self) -> str:
        """What is seen and what has scrolled off, lines that the terminal wrapped as one."""
        return self.run("capture-pane", "-p", "-J", "-S", "-").rstrip("\n")

    @property
    def styled(self) -> str:
        """What is seen, with its styles."""
        return self.run("capture-pane", "-p", "-e").rstrip("\n")

    def until(self, words: str) -> str:
        """The screen, once it shows these words."""
        return self.until_screen(lambda screen: words in screen, words)

    def prompt(self, after: str = "") -> str:
        """The screen, once it shows these words and a prompt that waits below."""
        return self.until_screen(lambda screen: after in screen and screen.split("\n")[-1].strip() == ">>>", after)

    def until_screen(self, found: Callable[[str], bool], what: str) -> str:
        """The screen, once it is as wanted. Fails with the screen after a minute."""
        deadline = time.monotonic() + WAIT_S
        while not found(screen := self.screen):
            assert time.monotonic() < deadline, f"not shown: {what}\n{screen}"
            self._news_come()
        return screen

    def _news_come(self) -> None:
        """Wait until something is shown, a second at most: a resize alone shows nothing."""
        if select.select([self._reader], [], [], 1.0)[0] and not os.read(self._reader, 65_536):
            select.select([], [], [], 0.05)  # tmux has not opened its end yet

    def close(self) -> None:
        """End it with what runs in it."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False, timeout=WAIT_S)
        os.close(self._reader)


@contextmanager
def in_tmux(*args: str, env: Mapping[str, str], folder: Path, width: int = 80, height: int = 24) -> Iterator[Tmux]:
    """`mscli ARGS` in a tmux window of this size."""
    folder.mkdir(exist_ok=True)
    made = Tmux([sys.executable, "-m", "mscli", *args], {"LANG": "C.UTF-8", **env}, folder, width, height)
    try:
        yield made
    finally:
        made.close()
