"""Progress of a slow download, as a terminal of 80 and of 40 columns shows it, and what a Ctrl-C leaves."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub import Hub
from support.terminal import on_a_terminal
from support.weights.hub_profile import at, own_profile, published

from mscli.cli.progress import pull_text
from mscli.weights.progress import DOWNLOADING, Progress

GIB = 2**30


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that sends 100 KiB in a second."""
    with published(tmp_path / "cas") as hub:
        hub.rate = 100 * 1024
        yield hub


@pytest.mark.parametrize("width", [80, 40])
def test_a_slow_download_is_one_moving_line_and_ctrl_c_says_what_is_kept(
    width: int, hub: Hub, home: Path, user_env: dict[str, str]
) -> None:
    own_profile(home)
    with on_a_terminal("pull", "tiny", env={**user_env, **at(hub)}, width=width) as terminal:
        terminal.read_until(lambda: "KiB/s" in terminal.raw, "a speed")
        terminal.child.send_signal(signal.SIGINT)
        code, shown = terminal.ended(), terminal.raw
    assert code == 130, shown
    drawn = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", shown)]
    assert [line for line in drawn if len(line) >= width] == []
    bars = [line for line in drawn if "KiB/s" in line]
    assert all(re.search(r"\d+%  \d+( KiB)?/\d MiB  \d+ KiB/s", line) for line in bars), bars
    assert any("weights" in line or "plan" in line for line in drawn[:3]), "nothing is shown before the hub answers"
    assert "interrupted; what was downloaded is kept" in " ".join(" ".join(drawn).split())


def test_ctrl_c_while_weights_come_says_that_nothing_was_started(
    hub: Hub, home: Path, user_env: dict[str, str]
) -> None:
    own_profile(home)
    with on_a_terminal("up", "tiny", "--no-check", env={**user_env, **at(hub)}) as terminal:
        terminal.read_until(lambda: "KiB/s" in terminal.raw, "a speed")
        terminal.child.send_signal(signal.SIGINT)
        assert terminal.ended() == 130
        said = " ".join(terminal.shown.split())
    assert "interrupted; nothing was started What was downloaded is kept." in said


LOOKS = {
    "a fast link": Progress(DOWNLOADING, 7 * GIB, 14 * GIB, 95.3 * 2**20, 75.0, "a.gguf"),
    "a slow link": Progress(DOWNLOADING, 7 * GIB, 14 * GIB, 300 * 1024.0, 24467.0, "a.gguf"),
    "the beginning": Progress(DOWNLOADING, 0, 14 * GIB, None, None, "a.gguf"),
    "large weights": Progress(DOWNLOADING, 10 * GIB, 130 * GIB, 1023.9 * 2**20, 122.0, "model-00001-of-00010"),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("width", [77, 37])
def test_the_line_of_a_download_fits(width: int, look: str) -> None:
    line = pull_text(LOOKS[look], width)
    assert len(line) <= width
    assert re.search(r"\d+%  [\d.]+( \w+)?/\d+\.\d GiB", line)
    assert ("█" in line or "░" in line) == (width == 77)


def test_a_slow_link_is_told_in_kib_per_second() -> None:
    assert "300 KiB/s" in pull_text(LOOKS["a slow link"], 77)
    assert "6 h 47 min left" in pull_text(LOOKS["a slow link"], 77)
