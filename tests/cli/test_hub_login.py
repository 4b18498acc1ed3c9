"""A gated repository: tried before anything large is fetched, and on a terminal asked for what it wants."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.hub import Hub
from support.run_mscli import Mscli, call, environment
from support.terminal import ENTER, on_a_terminal
from support.weights.hub_profile import REPOSITORY, at, own_profile, published

Machine = Callable[..., dict[str, str]]
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz012345"
BF16 = "mistralai/Mistral-Small-3.1-24B-Instruct-2503"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub whose one repository asks for its conditions to be accepted, and a token whose account has."""
    with published(tmp_path / "cas") as hub:
        hub.tokens[TOKEN] = True
        hub.repositories[REPOSITORY].accepted = {TOKEN}
        yield hub


@pytest.fixture
def user(hub: Hub, home: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user at a terminal; what he starts is stopped at the end."""
    own_profile(home)
    env = environment(tmp_path / "person", home, **at(hub))
    yield env
    call("down", "--all", env=env)


def token_file(tmp_path: Path) -> Path:
    return tmp_path / "person" / ".cache" / "huggingface" / "token"


@pytest.mark.parametrize("gate", [None, set()], ids=["open", "gated"])
def test_no_engine_is_offered_for_weights_that_the_hub_refuses(
    mscli: Mscli, machine: Machine, hub: Hub, gate: set[str] | None
) -> None:
    repository = hub.add(BF16, {"params.json": b"{}", "tekken.json": b"{}", "consolidated.safetensors": b"0" * 1000})
    repository.accepted = gate
    ran = mscli("up", "small-bf16", "--json", env={**machine("h100-80"), **at(hub)})
    said = "confirmation_needed" if gate is None else "download_failed"
    assert (ran.code, ran.error["code"]) == (1, said), ran.out
    if gate is not None:
        assert ran.error["details"]["cause"] == "hf_gated"
        assert "mistral_common" not in ran.out


@pytest.mark.parametrize("command", [("pull", "tiny"), ("up", "tiny")], ids=["pull", "up"])
def test_a_token_is_asked_for_kept_for_the_user_alone_and_used(
    user: dict[str, str], tmp_path: Path, hub: Hub, command: tuple[str, ...]
) -> None:
    with on_a_terminal(*command, env=user) as terminal:
        terminal.until("Token (not shown; Enter: stop): ")
        terminal.press(TOKEN + ENTER)
        assert terminal.ended() == 0, terminal.shown
        assert TOKEN not in terminal.raw
    assert f"https://huggingface.co/{REPOSITORY}" in terminal.shown
    kept = token_file(tmp_path)
    assert (kept.read_text(), stat.S_IMODE(kept.stat().st_mode)) == (TOKEN, 0o600)
    assert hub.leaked_tokens == []


def test_without_a_token_it_ends_with_what_to_do(user: dict[str, str], tmp_path: Path) -> None:
    with on_a_terminal("pull", "tiny", env=user) as terminal:
        terminal.until("Token (not shown; Enter: stop): ")
        terminal.press(ENTER)
        assert terminal.ended() == 1
    assert "hf auth login" in terminal.shown
    assert not token_file(tmp_path).exists()


def test_conditions_accepted_meanwhile_let_it_go_on(user: dict[str, str], hub: Hub) -> None:
    hub.repositories[REPOSITORY].accepted = set()
    with on_a_terminal("pull", "tiny", env={**user, "HF_TOKEN": TOKEN}) as terminal:
        terminal.until("Try again? [Y/n] ")
        hub.repositories[REPOSITORY].accepted = {TOKEN}
        terminal.press(ENTER)
        assert terminal.ended() == 0, terminal.shown


def test_a_script_is_never_asked(mscli: Mscli, user: dict[str, str]) -> None:
    ran = mscli("pull", "tiny", env=user)
    assert (ran.code, "Token" in ran.err) == (1, False)
    assert "HF_TOKEN" in ran.err
