"""What earlier versions wrote is still shown, used and stopped."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.run_mscli import Mscli

import mscli as package
from mscli.instances.json_values import load_lines
from mscli.instances.process import MARK, Identity, alive, identify, wait_death
from mscli.lifecycle.learning import Past, remembered
from mscli.lifecycle.snapshot import load_observations
from mscli.paths import Places, places

FILES = Path(__file__).with_name("from_earlier")
SERVER = ["-m", "mscli.engines.llamacpp.embedded"]


def filled(name: str, **values: object) -> str:
    """A file of the earlier version, with this machine's values."""
    text = (FILES / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


@pytest.fixture
def kept(home: Path) -> Places:
    return places({"MSCLI_HOME": str(home)})


@pytest.fixture
def instance(kept: Places) -> Callable[..., None]:
    """Puts an instance of the earlier version into its folder."""

    def put(name: str, text: str) -> None:
        folder = kept.instances / name
        (folder / "tmp").mkdir(parents=True)
        (folder / "log").touch()
        (folder / "record.json").write_text(text)

    return put


@pytest.fixture
def running(home: Path, kept: Places, instance: Callable[..., None], user_env: dict[str, str]) -> Iterator[Identity]:
    """An engine as the earlier version started and recorded it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = {"HOME": home, "PYTHON": sys.executable, "PACKAGE": Path(package.__file__).parent, "PORT": port}
    record = json.loads(filled("running.json", **values, PID=0, START_TICKS=0))
    folder = kept.instances / "rehearsal"
    instance("rehearsal", "")
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, *SERVER, *record["argv"][3:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**user_env, **record["env"], MARK: record["mark"]}, cwd=folder, start_new_session=True,
        )  # fmt: skip
    who = identify(server.pid)
    assert who is not None
    ids = {"PID": who.pid, "START_TICKS": who.start_ticks, "BOOT_ID": who.boot_id}
    (folder / "record.json").write_text(filled("running.json", **values, **ids))
    yield who
    server.kill()
    server.wait()


def test_a_running_instance_is_shown_used_and_stopped(mscli: Mscli, running: Identity) -> None:
    up = mscli("up", "rehearsal", "--json").data  # the same request: nothing new is started
    assert (up["already"], up["instance"]["pid"]) == (True, running.pid)
    checked = {check["name"]: check["status"] for check in mscli("check", "--json").envelope["data"]["checks"]}
    # It was started with the template in its file, which loses the tools where a question is a list.
    assert (checked["chat"], checked["tools"], checked["image"]) == ("ok", "fail", "ok")
    (shown,) = mscli("status", "--json").data["instances"]
    assert (shown["name"], shown["state"], shown["profile"], shown["context"]) == (
        "rehearsal", "ready", "rehearsal", 4096,
    )  # fmt: skip
    assert str(shown["port"]) in mscli("env", "rehearsal").out
    (stopped,) = mscli("down", "--json").data["stopped"]
    assert (stopped["name"], stopped["survivors"]) == ("rehearsal", [])
    assert wait_death(running.pid, 5.0)
    assert not alive(running)


def test_a_stopped_instance_is_shown_and_started_again(
    mscli: Mscli, home: Path, kept: Places, instance: Callable[..., None], running: Identity
) -> None:
    assert mscli("down", "rehearsal").code == 0
    assert mscli("restart", "rehearsal", "--json").data["instance"]["state"] == "ready"
    who = {"PID": os.getpid(), "START_TICKS": 1, "BOOT_ID": "another boot"}
    instance("tiny", filled("stopped.json", HOME=home, USER=home.parent, PORT=8000, **who))
    shown = {it["name"]: it for it in mscli("status", "--all", "--json").data["instances"]}
    assert (shown["tiny"]["state"], shown["tiny"]["gpus"]) == ("stopped", [0])


def test_what_starts_took_is_read(kept: Places) -> None:
    kept.state.mkdir(parents=True)
    for name in ("observations.jsonl", "starts.jsonl"):
        (kept.state / name).write_text((FILES / name).read_text())
    assert [(seen.gpu, seen.observed_bytes) for seen in load_observations(kept)] == [
        ("NVIDIA GeForce RTX 4090", 939524096)
    ]
    assert [(past.kind.profile, past.seconds) for past in load_lines(kept.starts, Past)] == [
        ("tiny", 0.51),
        ("rehearsal", 0.49),
    ]


def test_what_had_to_be_changed_is_used(mscli: Mscli, home: Path, kept: Places) -> None:
    kept.profiles.mkdir(parents=True)
    (kept.profiles / "mine.yaml").write_text((FILES / "mine.yaml").read_text())
    version = next(it for it in mscli("engines", "--json").data["engines"] if it["name"] == "llama.cpp")["version"]
    contents = hashlib.sha256(filled("profile.json", HOME=home).encode()).hexdigest()[:16]
    kept.state.mkdir(parents=True, exist_ok=True)
    kept.healed.write_text(filled("healed.jsonl", CONTENTS=contents, VERSION=version, ROOM=2**60))
    assert [entry.adjustment.kv_types for entry in remembered(kept)] == [("f16",)]
    up = mscli("up", "mine", "--json").data
    assert up["plan"]["kv_type"] == "f16", "flash attention is off: q8_0 would have failed first"
    assert [(heal["change"], heal["why"]) for heal in up["healed"]] == [
        ("f16 KV", "remembered: an earlier start needed it")
    ]
