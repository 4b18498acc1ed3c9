"""Folders named by the environment: a home that does not exist is said so, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.run_mscli import call, environment

from mscli.errors import Code, MscliError
from mscli.paths import expanded, hub_cache, hub_token_file, places

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
