"""A dry run refuses what the start refuses before it starts, fetches or installs anything, in the same words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.run_mscli import Mscli

Machine = Callable[..., dict[str, str]]


@pytest.mark.usefixtures("gpu_llama")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        pytest.param("small-q4 --offline", "engine_missing", id="an engine that may not be installed"),
        pytest.param("small-gguf-q4 --weights EMPTY", "weights_missing", id="a folder without the weights"),
        pytest.param("small-gguf-q4 --offline", "weights_missing", id="weights that may not be fetched"),
        pytest.param("rehearsal --host nowhere.invalid", "usage", id="an address of nobody"),
        pytest.param("small-q4 --template gguf", "usage", id="what the engine cannot do"),
    ],
)
def test_what_the_start_refuses_the_dry_run_refuses(
    mscli: Mscli, machine: Machine, tmp_path: Path, words: str, code: str
) -> None:
    (tmp_path / "empty").mkdir()
    line = words.replace("EMPTY", str(tmp_path / "empty")).split()
    env = {**machine("rtx4090"), "PATH": f"{os.environ['PATH'].partition(':')[0]}:/usr/bin:/bin"}
    refused, shown = (mscli("up", *line, "--json", *more, env=env) for more in ((), ("--dry-run",)))

    assert refused.error["code"] == code
    assert shown.error == refused.error


def test_a_dry_run_refuses_the_name_of_another_instance_and_says_what_runs_already(mscli: Mscli) -> None:
    assert mscli("up", "rehearsal").code == 0
    other = ("up", "rehearsal", "--ctx", "1024", "--json")
    refused, shown = mscli(*other), mscli(*other, "--dry-run")
    again = mscli("up", "rehearsal", "--json", "--dry-run").data
    mscli("down")

    assert refused.error["code"] == "instance_exists"
    assert shown.error == refused.error
    assert "rehearsal is already running" in again["notes"]
