"""Records: written whole, private, and never lost when they cannot be read."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscli.catalog.sampling import Sampling
from mscli.engines.environment import Contained
from mscli.errors import Code, MscliError
from mscli.instances.process import Identity
from mscli.instances.records import Record, Records, Request
from mscli.instances.state import Instance, look
from mscli.instances.store import SCHEMA, Unreadable, check_name
from mscli.paths import places
from mscli.planning.plan import GpuMemory, Overrides, Plan

MEMORY = GpuMemory(0, "GPU-1", "NVIDIA GeForce RTX 4090", 24, 23, 1, 10, 1, 5, 1, 1, 1, 4)
PLAN = Plan(
    "p", "llama.cpp", "m", "q4", "safe", ("why",), 4096, "f16", 1, 0, 1, (0,), ("GPU-1",), (MEMORY,), 41, 0,
    {"gpu_memory_utilization": 0.9, "max_num_seqs": 4, "eager": False}, ("step",), None, None,
)  # fmt: skip


def record(name: str, folder: Path) -> Record:
    return Record(
        SCHEMA, name, Request("p", None, None, None, Overrides(gpus=("0",))), PLAN, "A model", False, "m",
        Sampling(0.15, None, None), None, "none", ("tools",), Identity(1, 2, "boot"), None, "p:1", "1.0", ("x", "--y"),
        {"A": "b"},
        "127.0.0.1", 8000, "/health", None, folder / "log", (folder / "w.gguf",), 1.5,
    )  # fmt: skip


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(places({"MSCLI_HOME": str(tmp_path)}))


def saved(records: Records, name: str) -> Path:
    folder = records.prepare(name)
    records.save(record(name, folder))
    return folder / "record.json"


def test_what_is_saved_is_read_back(records: Records) -> None:
    saved(records, "one")
    assert records.get("one") == record("one", records.run_dir("one"))
    assert records.all()[0] == (record("one", records.run_dir("one")),)


def test_a_container_is_remembered_with_the_engine_its_client_spoke_to(records: Records) -> None:
    contained = Contained(("/usr/bin/docker",), {"DOCKER_HOST": "unix:///x"}, "mscli-one", Path("/x/container"), "i:v1")
    folder = records.prepare("one")
    records.save(dataclasses.replace(record("one", folder), contained=contained))
    found = records.get("one")
    assert found is not None
    assert found.contained == contained


def test_a_record_from_before_there_were_containers_is_read(records: Records) -> None:
    path = saved(records, "one")
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "contained"})
    )
    assert records.get("one") == record("one", records.run_dir("one"))


def test_a_record_is_private(records: Records) -> None:
    path = saved(records, "one")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "not JSON"),
        (lambda text: "", "not JSON"),
        (lambda text: "[]", "schema is None"),
        (lambda text: text.replace(SCHEMA, "mscli-record/2"), "schema is 'mscli-record/2'"),
        (lambda text: text.replace('"port": 8000', '"port": "8000"'), "port: expected int"),
        (lambda text: text.replace('"alias": "m",', ""), "alias: missing"),
        (lambda text: text.replace('"alias"', '"alais"'), "alais: unknown key"),
    ],
)
def test_a_damaged_record_is_named_and_kept(records: Records, damage, reason: str) -> None:
    path = saved(records, "one")
    saved(records, "two")
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    good, broken = records.all()
    assert [item.name for item in good] == ["two"]
    assert [item.name for item in broken] == ["one"]
    assert reason in broken[0].reason
    with pytest.raises(MscliError, match="'one' cannot be read") as caught:
        records.get("one")
    assert caught.value.code is Code.RECORD_UNREADABLE
    assert path.read_bytes() == before


def test_a_record_of_another_user_is_reported(records: Records) -> None:
    if os.geteuid() == 0:
        path = records.prepare("one") / "record.json"
        path.mkdir()  # root may read everything but a folder
    else:
        path = saved(records, "one")
        path.chmod(0)
    assert isinstance(records.load("one"), Unreadable)


def test_a_reader_never_sees_half_a_record(records: Records) -> None:
    saved(records, "one")
    done = threading.Event()
    seen: list[object] = []

    def read() -> None:
        while not done.is_set():
            seen.append(records.load("one"))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(200):
        records.save(dataclasses.replace(record("one", records.run_dir("one")), port=8000 + i))
    done.set()
    reader.join()
    assert seen
    assert all(isinstance(item, Record) for item in seen)


def test_the_lock_is_held_by_one_process_at_a_time(records: Records, tmp_path: Path) -> None:
    code = (
        "import sys; from mscli.instances.records import Records; from mscli.paths import places\n"
        "with Records(places()).lock(): print('held', flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "MSCLI_HOME": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=env, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(MscliError, match=f"PID {other.pid} has held"), records.lock(0.1):
            pass
        other.communicate()
    with records.lock(5):
        pass


def test_forgetting_a_failed_start_keeps_its_log(records: Records) -> None:
    path = saved(records, "one")
    log = path.with_name("log")
    log.write_text("why it failed\n")
    records.forget("one")
    assert records.get("one") is None
    assert log.read_text() == "why it failed\n"
    assert not (path.parent / "tmp").exists()


def test_purge_leaves_nothing(records: Records) -> None:
    path = saved(records, "one")
    records.purge("one")
    assert not path.parent.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", ".hidden", "x" * 64, "a b", "a\n"])
def test_names_that_could_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(MscliError) as caught:
        check_name(name)
    assert caught.value.code is Code.USAGE


def test_base_url_is_reachable_from_this_machine(records: Records) -> None:
    one = record("one", records.run_dir("one"))
    assert one.base_url == "http://127.0.0.1:8000/v1"
    assert dataclasses.replace(one, host="0.0.0.0").base_url == "http://127.0.0.1:8000/v1"
    assert dataclasses.replace(one, host="::").base_url == "http://[::1]:8000/v1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(place=st.integers(0, 10**6), value=JSON, drop=st.booleans())
def test_a_record_with_one_change_is_read_or_named(records: Records, place: int, value: object, drop: bool) -> None:
    path = saved(records, "one")
    data = json.loads(path.read_text())
    places_in = list(places_of(data))
    holder, key = places_in[place % len(places_in)]
    if drop:
        del holder[key]
    else:
        holder[key] = value
    path.write_text(json.dumps(data))
    assert isinstance(records.load("one"), (Record, Unreadable))
    raw = records.raw("one")
    assert isinstance(raw, Unreadable) or isinstance(look(raw or {}, records), (Instance, Unreadable))


def places_of(data: object) -> Iterator[tuple[Any, Any]]:
    """Every place in JSON data: the list or object that holds it, and its index or key there."""
    items = enumerate(data) if isinstance(data, list) else data.items() if isinstance(data, dict) else ()
    for key, value in items:
        yield data, key
        yield from places_of(value)


@given(
    content=st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | JSON.map(lambda it: json.dumps(it).encode())
)
def test_a_record_of_anything_is_named(records: Records, content: bytes) -> None:
    saved(records, "one").write_bytes(content)
    assert isinstance(records.load("one"), Unreadable)
    assert isinstance(records.raw("one"), Unreadable)


def test_only_the_start_that_runs_is_noted_as_ready(records: Records) -> None:
    path = saved(records, "one")
    one = records.get("one")
    assert one is not None
    records.mark_ready("one", "another start's")
    assert not records.was_ready("one")
    records.mark_ready("one", one.mark)
    assert records.was_ready("one")
    records.save(dataclasses.replace(one, stopped_at=2.0))
    records.tidy("one")
    records.mark_ready("one", one.mark)  # a status that looked a moment before the stop
    assert not records.was_ready("one")
    assert [file.name for file in path.parent.iterdir() if file.name != "tmp"] == ["record.json"]
