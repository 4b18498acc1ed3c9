"""Weights as a user handles them: pulled from a hub on loopback, served, verified, carried, pruned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.hub import Hub
from support.run_mscli import Mscli, Ran
from support.weights.hub_profile import GGUF, REPOSITORY, at, own_profile, published

Served = Callable[..., Ran]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that publishes the rehearsal's two files."""
    with published(tmp_path / "cas") as hub:
        yield hub


@pytest.fixture
def served(mscli: Mscli, hub: Hub, home: Path) -> Served:
    """mscli with that hub, and a user's own profile `tiny` whose weights come from it."""
    own_profile(home)

    def run(*args: str, more: dict[str, str] | None = None) -> Ran:
        return mscli(*args, env=at(hub, **(more or {})))

    return run


def test_up_pulls_what_is_missing_and_serves_it(served: Served, hub: Hub) -> None:
    up = served("up", "tiny", "--json")
    assert up.code == 0, up.out
    assert "scripted stand-in" in served("chat", "hello").out
    served("down")
    before = len(hub.requests)
    again = served("up", "tiny", "--json")
    assert again.code == 0, again.out
    assert len(hub.requests) == before, "nothing is asked of the hub when everything is here"


def test_pull_verify_and_repair(served: Served, tmp_path: Path) -> None:
    pulled = served("pull", "tiny", "--json")
    assert pulled.data["fetched_bytes"] > 2_000_000
    assert served("pull", "tiny", "--json").data["fetched_bytes"] == 0
    assert served("pull", "tiny", "--verify", "--json").data["bad"] == []
    model = Path(pulled.data["model"]).resolve()
    damaged = bytearray(model.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    model.chmod(0o644)
    model.write_bytes(bytes(damaged))
    offline = served("pull", "tiny", "--verify", "--offline", "--json")
    assert (offline.code, offline.error["details"]["cause"]) == (1, "corrupt_weights")
    repaired = served("pull", "tiny", "--verify", "--json").data
    assert repaired["bad"] == [GGUF]
    assert repaired["repaired"] is True
    assert served("pull", "tiny", "--verify", "--json").data["bad"] == []


def test_events_are_json_lines_before_the_result(served: Served) -> None:
    ran = served("pull", "tiny", "--json=stream")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert lines[-1]["ok"] is True
    events = [line["event"] for line in lines[:-1]]
    assert events[0] == "stage"
    assert "progress" in events
    done = [line["done_bytes"] for line in lines[:-1] if line["event"] == "progress" and line["stage"] == "downloading"]
    assert done == sorted(done)


def test_a_gated_repository_names_the_page_to_accept(served: Served, hub: Hub) -> None:
    hub.repositories[REPOSITORY].accepted = set()
    refused = served("pull", "tiny", "--json")
    assert (refused.code, refused.error["details"]["cause"]) == (1, "hf_gated")
    assert REPOSITORY in refused.error["message"] + refused.error["hint"]


def test_offline_says_what_is_missing(served: Served) -> None:
    refused = served("up", "tiny", "--offline", "--json")
    assert (refused.code, refused.error["code"]) == (1, "weights_missing")
    assert served("status").code == 3


def test_weights_are_carried_by_disk(served: Served, hub: Hub, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    assert served("pull", "tiny", "--to", str(disk), "--json").code == 0
    before = len(hub.requests)
    elsewhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path / "another")}
    up = served("up", "tiny", "--weights", str(disk), "--json", more=elsewhere)
    assert up.code == 0, up.out
    assert len(hub.requests) == before
    assert "scripted stand-in" in served("chat", "hello").out


def test_weights_are_listed_and_only_freed_when_nothing_needs_them(served: Served, home: Path) -> None:
    served("pull", "tiny")
    listed = served("weights", "--json").data["weights"]
    assert [(item["repository"], item["profiles"]) for item in listed] == [(REPOSITORY, ["tiny"])]
    assert served("weights", "prune", "--json", "--yes").data["candidates"] == []
    up = served("up", "tiny", "--json")
    assert up.code == 0
    kept = served("weights", "prune", "--keep", "small-gguf-q4", "--yes", "--json").data
    assert kept["candidates"] == [], "an instance serves from them"
    served("down")
    refused = served("weights", "prune", "--keep", "small-gguf-q4")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    freed = served("weights", "prune", "--keep", "small-gguf-q4", "--yes", "--json").data
    assert freed["freed_bytes"] > 2_000_000
    assert served("weights", "--json").data["weights"] == []


def test_profiles_update_moves_the_pin_on_purpose(served: Served, hub: Hub) -> None:
    moved = served("profiles", "update", "tiny", "--json").data
    assert moved["before"] == "main"
    assert len(moved["now"]) == 40
    assert served("profiles", "update", "tiny", "--json").data["before"] == moved["now"]
    assert served("up", "tiny", "--json").code == 0
    refused = served("profiles", "update", "rehearsal", "--json")
    assert (refused.code, refused.error["code"]) == (2, "usage")


def test_damaged_pins_are_told_not_ignored(served: Served, home: Path) -> None:
    served("profiles", "update", "tiny")
    (home / "config" / "revisions.json").write_text("{")
    refused = served("pull", "tiny", "--json")
    assert (refused.code, refused.error["code"]) == (1, "file")
    assert "revisions.json" in refused.error["message"]
