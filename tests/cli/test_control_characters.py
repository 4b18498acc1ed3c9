"""What others wrote reaches the terminal as text: no control sequence of a log is ever passed on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run_mscli import Mscli

# sets the window's title, writes to the clipboard, clears the screen, and the same as single bytes (C1)
HOSTILE = "\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x1b[2J\x9d0;owned\x9c"
LINE = f"RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB {HOSTILE} GPU 0 has 23.6 GiB"


def controls(text: str) -> set[str]:
    return {it for it in text if (ord(it) < 32 and it not in "\n\t") or 0x7F <= ord(it) < 0xA0}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "engine.log"
    path.write_text(LINE + "\n")
    return path


def test_a_diagnosed_log_is_quoted_without_them(mscli: Mscli, log: Path) -> None:
    ran = mscli("doctor", "--log", str(log), "--verbose")
    assert "CUDA out of memory" in ran.out
    assert controls(ran.out + ran.err) == set()


def test_logs_shows_a_log_without_them(mscli: Mscli, home: Path) -> None:
    mscli("up", "rehearsal")
    with (home / "state" / "instances" / "rehearsal" / "log").open("a") as own:
        own.write(LINE + "\n")
    ran = mscli("logs", "-n", "5")
    assert "CUDA out of memory" in ran.out
    assert controls(ran.out + ran.err) == set()
