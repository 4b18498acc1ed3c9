"""Folders named by the environment: a home that does not exist is said so, in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.run_mscli import call, environment

from mscli.errors import Code, MscliError
from mscli.paths import expanded, hub_cache, hub_token_file, on_path, places

NOBODY = "~nosuchuser/x"


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        ("MSCLI_HOME", places),
        ("HF_HOME", hub_cache),
        ("HF_HUB_CACHE", hub_cache),
        ("HF_HOME", hub_token_file),
        ("HF_TOKEN_PATH", hub_token_file),
    ],
)
def test_the_home_of_nobody_is_a_fault_of_usage(variable: str, place: Callable[..., object]) -> None:
    with pytest.raises(MscliError, match="there is no such user") as raised:
        place({variable: NOBODY, "HOME": "/home/me"})
    assert raised.value.code == Code.USAGE


def test_a_tilde_stands_for_the_home_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/models") == Path("/home/me/models")
    assert expanded("a/~b") == Path("a/~b")


def test_a_command_says_it_in_one_line(tmp_path: Path) -> None:
    done = call("status", env={**environment(tmp_path, tmp_path), "MSCLI_HOME": NOBODY})
    assert done.code == 2
    assert done.err.startswith(f"error: '{NOBODY}': there is no such user")


def test_a_program_is_found_as_a_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, mode in (("first", 0o644), ("second", 0o755), ("third", 0o755)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "engine").write_text("")
        (tmp_path / folder / "engine").chmod(mode)
    (tmp_path / "engine").mkdir()  # a folder of that name is no program
    path = f"{tmp_path}/none:{tmp_path}:{tmp_path}/first:{tmp_path}/second:{tmp_path}/third"
    second = str(tmp_path / "second/engine")
    assert on_path("engine", path) == shutil.which("engine", path=path) == second
    assert on_path("engine", "") is on_path("other", path) is None
    assert on_path(second, path) == second
    monkeypatch.chdir(tmp_path / "second")
    assert on_path("engine", f"{tmp_path}/first:") == second
    monkeypatch.setenv("PATH", path)
    assert on_path("engine") == second
