"""What mscli says of an Ollama server is what is so: asked of the stand-in always, and of a real Ollama where there is
one on PATH. The model is the rehearsal's, of 2 million parameters, on the CPU; the user's own server has it already."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.ollama.standins import Scene
from support.run_mscli import Mscli, Ran

import mscli as package
from mscli.chat.message import assistant, user
from mscli.chat.reply import ask, target_of
from mscli.chat.stream import Piece
from mscli.errors import MscliError
from mscli.instances.process import stat
from mscli.instances.records import Records
from mscli.paths import places

TAG = "tiny:q8"
TIMEOUT_S = 60.0
GGUF = Path(package.__file__).parent / "rehearsal" / "rehearsal-q8_0.gguf"
PROFILE = """title: The rehearsal's model on Ollama
engine: ollama
model: tiny
variant: q8_0
device: cpu
context:
  floor: 1024
  target: 4096
  cap: 131072
kv_types: [f16]
images: 0
automatic: false
rank: 1000
notes: for tests
"""
VARIANT = """variants:
  q8_0:
    format: ollama
    quantisation: q8_0
    weights_bytes: 2302976
    projector_bytes: 438272
    host_bytes: 522240
    download_bytes: 2355744
    bytes_source: the tensors
    source:
      kind: ollama
      repository: tiny:q8
"""


@dataclass(frozen=True)
class Site:
    """A user with Ollama, whose store has the model, and the way to call mscli as that user. `url`: of the user's own
    server, which runs."""

    call: Mscli
    env: Mapping[str, str]
    url: str
    server: subprocess.Popen[bytes]
    store: Path

    def mscli(self, *args: str, **env: str) -> Ran:
        return self.call(*args, env={**self.env, **env})

    def up(self, *args: str, **env: str) -> str:
        """The root of the server on which the instance came up."""
        done = self.mscli("up", "tiny", "--yes", "--json", *args, **env)
        assert done.code == 0, done.out + done.err
        return str(done.data["instance"]["base_url"]).removesuffix("/v1")

    def status(self, name: str = "tiny") -> dict[str, Any]:
        return dict(self.mscli("status", name, "--json").data["instances"][0])


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.ollama)])
def site(
    request: pytest.FixtureRequest, mscli: Mscli, user_env: dict[str, str], program: Path, tmp_path: Path
) -> Iterator[Site]:
    env = dict(user_env)
    if request.param == "real":
        found = shutil.which("ollama")
        if found is None:
            pytest.skip("no ollama binary on PATH")
        program.unlink()
        program.symlink_to(found)
    env.pop("OLLAMA_HOST", None)
    _write_profile(Path(env["MSCLI_HOME"]) / "config" / "profiles")
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    with (tmp_path / "user-server.log").open("wb") as log:
        own = {**env, "OLLAMA_HOST": host, "OLLAMA_NO_CLOUD": "1"}
        server = subprocess.Popen([program, "serve"], env=own, stdout=log, stderr=log)
    try:
        _give(f"http://{host}")
        yield Site(mscli, env, f"http://{host}", server, Path(env["HOME"]) / ".ollama" / "models")
    finally:
        mscli("down", "--all", env=env)
        server.terminate()
        server.wait(30)


def _write_profile(folder: Path) -> None:
    shipped = Path(package.__file__).parents[1] / "profiles" / "models" / "rehearsal.yaml"
    (folder / "models").mkdir(parents=True)
    head = shipped.read_text().partition("variants:")[0]
    (folder / "models" / "tiny.yaml").write_text(head + VARIANT)
    (folder / "tiny.yaml").write_text(PROFILE)


def _give(url: str) -> None:
    content = GGUF.read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert eventually(lambda: answers(url)), "the user's server did not start"
    httpx.post(f"{url}/api/blobs/{digest}", content=content, timeout=60).raise_for_status()
    made = {"model": TAG, "files": {GGUF.name: digest}, "stream": False}
    httpx.post(f"{url}/api/create", json=made, timeout=60).raise_for_status()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/version", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def eventually(holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def loaded(url: str) -> dict[str, int]:
    """The models in memory, with their contexts."""
    return {model["name"]: model["context_length"] for model in httpx.get(f"{url}/api/ps").json()["models"]}


def tags(url: str) -> set[str]:
    return {model["name"] for model in httpx.get(f"{url}/api/tags").json()["models"]}


def generate(url: str, model: str, **body: Any) -> None:
    httpx.post(f"{url}/api/generate", json={"model": model, **body}, timeout=60).raise_for_status()


def runners(pid: int) -> list[int]:
    """The children of a server that hold its models."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def lives(pid: int) -> bool:
    seen = stat(pid)
    return seen is not None and seen.state not in "ZXx"


def hashes(store: Path) -> dict[str, str]:
    files = (path for path in store.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_contexts_of_one_model_run_side_by_side_on_borrowed_weights(site: Site) -> None:
    before = hashes(site.store)
    one, two = site.up("--name", "one", "--ctx", "2048"), site.up("--name", "two", "--ctx", "4096")
    assert (loaded(one), loaded(two)) == ({"mscli/one:latest": 2048}, {"mscli/two:latest": 4096})
    pids = [site.status(name)["pid"] for name in ("one", "two")]
    assert site.mscli("chat", "hello", "--name", "one").code == 0
    assert site.mscli("chat", "hello", "--name", "two").code == 0
    assert loaded(site.url) == {}, "the user's own server was not used"
    assert site.mscli("down", "one").code == 0
    assert loaded(two) == {"mscli/two:latest": 4096}
    assert site.mscli("down", "two").code == 0
    assert not any(lives(pid) for pid in pids)
    assert hashes(site.store) == before


def test_status_tells_when_the_model_is_out_of_memory_and_up_loads_it_again(site: Site) -> None:
    url = site.up()
    assert (site.status()["state"], site.status()["note"]) == ("ready", None)
    generate(url, "mscli/tiny", keep_alive=0)
    assert eventually(lambda: site.status()["state"] == "unloaded")
    assert "not in memory" in site.status()["note"]
    assert site.up() == url
    assert loaded(url) == {"mscli/tiny:latest": 4096}
    assert site.status()["state"] == "ready"


def test_status_tells_when_the_process_that_holds_the_model_has_died(site: Site) -> None:
    url = site.up()
    for pid in runners(site.status()["pid"]):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: site.status()["state"] == "unloaded")
    assert loaded(url) != {}, "the server itself goes on listing it"
    assert "died" in site.status()["note"]
    site.up()
    assert site.status()["state"] == "ready"


def test_a_model_that_somebody_removed_is_made_again(site: Site) -> None:
    url = site.up()
    generate(url, "mscli/tiny", keep_alive=0)
    httpx.request("DELETE", f"{url}/api/delete", json={"model": "mscli/tiny"}).raise_for_status()
    assert eventually(lambda: site.status()["state"] == "unloaded")
    assert "no such model" in site.status()["note"]
    assert loaded(site.up()) == {"mscli/tiny:latest": 4096}


def test_a_dead_server_is_dead_and_what_it_left_behind_is_ended(site: Site) -> None:
    site.up()
    pid = site.status()["pid"]
    left = runners(pid)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: site.status()["state"] == "crashed")
    assert site.status()["orphans"] == left
    assert site.mscli("down").code == 0
    assert not any(lives(each) for each in left)


def test_down_ends_a_server_that_is_frozen(site: Site) -> None:
    site.up()
    pid = site.status()["pid"]
    left = [pid, *runners(pid)]
    os.kill(pid, signal.SIGSTOP)
    assert site.mscli("down").code == 0
    assert not any(lives(each) for each in left)


def test_an_adopted_server_keeps_nothing_of_ours_after_down(site: Site) -> None:
    host = site.url.removeprefix("http://")
    assert site.up("--adopt", OLLAMA_HOST=host) == site.url
    assert loaded(site.url) == {"mscli/tiny:latest": 4096}
    assert site.mscli("down", "--purge", OLLAMA_HOST=host).code == 0
    assert loaded(site.url) == {}
    assert tags(site.url) == {TAG}


def test_adopting_does_not_put_somebody_elses_model_out_of_memory_unasked(site: Site) -> None:
    host = site.url.removeprefix("http://")
    generate(site.url, TAG, options={"num_ctx": 2048})
    refused = site.mscli("up", "tiny", "--yes", "--json", "--adopt", OLLAMA_HOST=host)
    assert refused.error["code"] == "instance_exists"
    assert f"ollama stop {TAG}" in refused.error["hint"]
    assert loaded(site.url) == {TAG: 2048}
    site.up("--adopt", "--replace", OLLAMA_HOST=host)
    assert loaded(site.url) == {"mscli/tiny:latest": 4096}


def test_down_leaves_a_model_that_took_the_place_of_ours(site: Site) -> None:
    host = site.url.removeprefix("http://")
    site.up("--adopt", OLLAMA_HOST=host)
    generate(site.url, TAG, options={"num_ctx": 2048})
    assert loaded(site.url) == {TAG: 2048}
    assert site.mscli("down", OLLAMA_HOST=host).code == 0
    assert loaded(site.url) == {TAG: 2048}


def test_what_is_adopted_says_what_cannot_be_promised_there(site: Site) -> None:
    host = site.url.removeprefix("http://")
    done = site.mscli("up", "tiny", "--yes", "--json", "--adopt", OLLAMA_HOST=host)
    assert any("OLLAMA_KEEP_ALIVE" in warning for warning in done.data["warnings"])


def test_a_reply_that_breaks_off_is_a_failure_and_keeps_what_had_come(site: Site, scene: Scene) -> None:
    """The stream ends cleanly when the process that holds the model dies: no finish_reason, no [DONE]."""
    site.up("--ctx", "32768")
    pid = site.status()["pid"]
    record = Records(places(site.env)).get("tiny")
    assert record is not None
    scene.play(faults=[{"on": "chat", "after": 3}])

    def hear(_: Piece) -> None:
        for runner in runners(pid):
            os.kill(runner, signal.SIGKILL)

    unending = [user("hello"), assistant("one")]
    with pytest.raises(MscliError, match="broke off") as raised:
        ask(target_of(record), unending, hear)
    assert raised.value.details["text"]
