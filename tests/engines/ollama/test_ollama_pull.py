"""Pulling through a server: progress, resumption, every fault named, and no byte fetched twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from support.ollama.standins import SMALL, Scene, Server

from mscli.engines.ollama.pull import Order, pull
from mscli.errors import Code, MscliError
from mscli.weights.fault import Timeouts
from mscli.weights.progress import Note, Progress

SIZE = 3_001_051  # the layers of the small model and its configuration
QUICK = Timeouts(connect_s=5.0, stall_s=0.4, retry_s=1.0)


@dataclass
class Heard:
    """A listener that keeps what it hears, and may do something at the first progress beyond `at`."""

    at: int = 1 << 62
    act: Callable[[], None] = lambda: None
    progresses: list[Progress] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        self.progresses.append(progress)
        if progress.done_bytes > self.at:
            self.at = 1 << 62
            self.act()

    def note(self, note: Note) -> None:
        self.notes.append(note)

    @property
    def codes(self) -> list[str]:
        return [note.code for note in self.notes]


def order(server: Server, tag: str = SMALL, size: int = SIZE) -> Order:
    return Order(server.url, True, tag, size, server.models)


def fetched_twice(server: Server) -> int:
    """Bytes that came from the registry more than once."""
    pieces = Counter((blob, start) for blob, start, _ in server.served())
    sizes = {(blob, start): size for blob, start, size in server.served()}
    return sum((times - 1) * sizes[piece] for piece, times in pieces.items())


def test_a_model_arrives_whole_with_progress_towards_its_size(start: Callable[..., Server], scene: Scene) -> None:
    scene.play(bytes_per_s=6_000_000)
    server, heard = start(), Heard()
    assert pull(order(server), heard, QUICK).bytes_on_disk == SIZE
    stages = [progress.stage for progress in heard.progresses]
    assert stages == sorted(stages, key=["downloading", "verifying", "done"].index)
    done = [progress.done_bytes for progress in heard.progresses]
    assert done == sorted(done)
    assert done[-1] == SIZE
    assert any(progress.speed and progress.eta_s for progress in heard.progresses)


def test_a_model_that_is_there_is_not_pulled_again(start: Callable[..., Server]) -> None:
    server = start()
    pull(order(server), Heard(), QUICK)
    pull(order(server), Heard(), QUICK)
    assert server.requests.count("POST /api/pull") == 1


def test_blobs_that_are_there_are_not_fetched_again(start: Callable[..., Server], scene: Scene) -> None:
    server = start()
    pull(order(server), Heard(), QUICK)
    manifest = next(server.models.joinpath("manifests").rglob("24b*"))
    manifest.unlink()
    pull(order(server), Heard(), QUICK)
    assert fetched_twice(server) == 0


def test_a_connection_that_breaks_is_opened_again_and_goes_on(start: Callable[..., Server], scene: Scene) -> None:
    scene.play(faults=[{"on": "pull", "kind": "cut", "after": 1_000_000}], bytes_per_s=20_000_000)
    server, heard = start(), Heard()
    assert pull(order(server), heard, QUICK).bytes_on_disk == SIZE
    assert heard.codes == ["retrying"]
    assert fetched_twice(server) == 0


def test_a_download_that_stands_still_is_asked_for_anew(start: Callable[..., Server], scene: Scene) -> None:
    scene.play(faults=[{"on": "pull", "kind": "stall", "after": 1_000_000}], bytes_per_s=20_000_000)
    server, heard = start(), Heard()
    assert pull(order(server), heard, QUICK).bytes_on_disk == SIZE
    assert heard.codes == ["stalled"]
    assert fetched_twice(server) == 0


def test_bytes_that_the_server_lost_are_no_stall_while_they_come_again(
    start: Callable[..., Server], scene: Scene
) -> None:
    scene.play(faults=[{"on": "pull", "kind": "cut", "after": 1_200_000}], bytes_per_s=20_000_000)
    server = start()

    class Losing(Heard):
        def note(self, note: Note) -> None:
            super().note(note)
            scene.play(bytes_per_s=1_500_000)
            for partial in (server.models / "blobs").glob("*-partial*"):
                partial.unlink()

    heard = Losing()
    assert pull(order(server), heard, QUICK).bytes_on_disk == SIZE
    assert heard.codes == ["retrying"]
    done = [progress.done_bytes for progress in heard.progresses]
    assert done == sorted(done)


def test_a_download_that_never_moves_again_ends_with_its_name(start: Callable[..., Server], scene: Scene) -> None:
    scene.play(faults=[{"on": "pull", "kind": "stall", "after": 500_000, "always": True}])
    with pytest.raises(MscliError) as raised:
        pull(order(start()), Heard(), QUICK)
    assert raised.value.details["cause"] == "stalled_download"
    assert "resumes where it stopped" in raised.value.hint


def test_a_part_that_begins_again_at_0_and_stops_at_the_same_place_is_given_up(
    start: Callable[..., Server], scene: Scene
) -> None:
    """What the real server does with a part that gets no bytes: every 31 s it begins at 0, for ever."""
    stuck = {"on": "pull", "kind": "stall", "after": 500_000, "again_s": 0.2, "always": True}
    scene.play(faults=[stuck], bytes_per_s=5_000_000)
    heard = Heard()
    with pytest.raises(MscliError, match=r"no byte of [0-9a-f]{12} has come") as raised:
        pull(order(start()), heard, QUICK)
    assert raised.value.details["cause"] == "stalled_download"
    done = [progress.done_bytes for progress in heard.progresses]
    assert done == sorted(done), "progress never goes back"


@pytest.mark.parametrize(
    "words",
    [
        'pull model manifest: 503: {"errors":[{"code":"UNAVAILABLE"}]}',
        "pull model manifest: 429: too many requests",
        "500: ",
        "context deadline exceeded",
        'pull model manifest: Get "https://registry.ollama.ai/v2/x": net/http: TLS handshake timeout',
    ],
)
def test_a_registry_that_refuses_for_the_moment_is_asked_again(
    start: Callable[..., Server], scene: Scene, words: str
) -> None:
    scene.play(faults=[{"on": "pull", "kind": "error", "text": words}] * 2)
    heard = Heard()
    assert pull(order(start()), heard, replace(QUICK, retry_s=60.0)).bytes_on_disk == SIZE
    assert heard.codes == ["retrying", "retrying"]


def test_a_small_blob_has_no_line_of_its_own_and_none_has_a_last_one(start: Callable[..., Server]) -> None:
    """As the real one tells it: what is here in 60 ms gets no line, and no blob one at 100 %."""
    with httpx.stream("POST", f"{start().url}/api/pull", json={"model": SMALL}, timeout=30) as stream:
        said = [json.loads(line) for line in stream.iter_lines()]
    layers = [line for line in said if "digest" in line]
    assert {line["total"] for line in layers} == {3_000_000}
    assert all(line.get("completed", 0) < line["total"] for line in layers)
    rest = ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]
    assert [line["status"] for line in said if "digest" not in line] == rest


@pytest.mark.parametrize("status", [401, 403, 404, 412])
def test_a_registry_that_refuses_for_good_is_not_asked_again(
    start: Callable[..., Server], scene: Scene, status: int
) -> None:
    scene.play(faults=[{"on": "pull", "kind": "error", "text": f"pull model manifest: {status}: no", "always": True}])
    server, heard = start(), Heard()
    with pytest.raises(MscliError):
        pull(order(server), heard, QUICK)
    assert server.requests.count("POST /api/pull") == 1


def test_bytes_that_are_not_the_registrys_are_fetched_once_more(start: Callable[..., Server], scene: Scene) -> None:
    scene.play(faults=[{"on": "pull", "kind": "corrupt"}])
    heard = Heard()
    assert pull(order(start()), heard, QUICK).bytes_on_disk == SIZE
    assert "corrupt" in heard.codes


def test_bytes_that_are_never_the_registrys_end_the_pull(start: Callable[..., Server], scene: Scene) -> None:
    scene.play(faults=[{"on": "pull", "kind": "corrupt", "always": True}])
    with pytest.raises(MscliError, match="digest mismatch") as raised:
        pull(order(start()), Heard(), QUICK)
    assert raised.value.details["cause"] == "corrupt_download"


@pytest.mark.parametrize(
    ("words", "cause", "code"),
    [
        ("pull model manifest: file does not exist", "model_not_found", Code.DOWNLOAD_FAILED),
        (
            "pull model manifest: 412: \n\nThe model you are attempting to pull requires a newer version of Ollama.",
            "version_backend_old",
            Code.ENGINE_UNSUPPORTED,
        ),
        ("pull model manifest: 429: too many", "hf_rate_limit", Code.DOWNLOAD_FAILED),
        ("pull model manifest: 401: unauthorized", "hf_gated", Code.DOWNLOAD_FAILED),
        (
            'pull model manifest: Get "https://registry.ollama.ai/v2/x": dial tcp: lookup registry.ollama.ai: no such '
            "host",
            "network_proxy",
            Code.DOWNLOAD_FAILED,
        ),
        (
            'Get "https://registry.ollama.ai/v2/x": tls: failed to verify certificate: x509: certificate signed by '
            "unknown authority",
            "network_proxy",
            Code.DOWNLOAD_FAILED,
        ),
        (
            'Get "https://registry.ollama.ai/v2/x": proxyconnect tcp: dial tcp 10.0.0.1:3128: connect: connection '
            "refused",
            "network_proxy",
            Code.DOWNLOAD_FAILED,
        ),
        ("open /srv/models/blobs/sha256-1: permission denied", "permissions", Code.FILE),
        ("the moon is in the wrong house", "unknown", Code.DOWNLOAD_FAILED),
    ],
)
def test_what_the_server_says_is_named(
    start: Callable[..., Server], scene: Scene, words: str, cause: str, code: Code
) -> None:
    scene.play(faults=[{"on": "pull", "kind": "error", "text": words, "always": True}])
    with pytest.raises(MscliError) as raised:
        pull(order(start()), Heard(), QUICK)
    assert (raised.value.details["cause"], raised.value.code) == (cause, code)
    assert raised.value.hint


def test_a_disk_that_fills_up_on_the_way_is_named(start: Callable[..., Server], scene: Scene) -> None:
    words = "write /srv/models/blobs/sha256-1-partial: no space left on device"
    scene.play(faults=[{"on": "pull", "kind": "error", "after": 100_000, "text": words}])
    with pytest.raises(MscliError) as raised:
        pull(order(start()), Heard(), QUICK)
    assert raised.value.code == Code.DISK_FULL


def test_a_network_that_breaks_in_the_middle_is_waited_for(start: Callable[..., Server], scene: Scene) -> None:
    words = 'max retries exceeded: Get "https://r2.example/x": dial tcp: i/o timeout'
    scene.play(faults=[{"on": "pull", "kind": "error", "after": 1_000_000, "text": words}], bytes_per_s=20_000_000)
    heard = Heard()
    assert pull(order(start()), heard, QUICK).bytes_on_disk == SIZE
    assert heard.codes == ["retrying"]


@dataclass
class Rescue(Heard):
    """A listener that ends the slowness once it has heard of it."""

    scene: Scene | None = None

    def note(self, note: Note) -> None:
        super().note(note)
        assert self.scene is not None
        self.scene.play(bytes_per_s=6_000_000)


def test_a_speed_that_collapses_is_told_and_the_server_asked_again(start: Callable[..., Server], scene: Scene) -> None:
    scene.play(bytes_per_s=2_000_000)
    heard = Rescue(at=1_500_000, act=lambda: scene.play(bytes_per_s=20_000), scene=scene)
    patient = Timeouts(connect_s=5.0, stall_s=30.0, retry_s=60.0, slow_s=0.5)

    assert pull(order(start()), heard, patient).bytes_on_disk == SIZE
    assert heard.codes[0] == "stalled"
    assert "KiB/s" in heard.notes[0].message


def test_a_disk_that_is_too_small_is_named_before_the_first_byte(start: Callable[..., Server]) -> None:
    server = start()
    with pytest.raises(MscliError, match=r"[\d.]+ GiB free") as raised:
        pull(order(server, size=1 << 60), Heard())
    assert raised.value.code == Code.DISK_FULL
    assert raised.value.details["cause"] == "disk_full"
    assert "POST /api/pull" not in server.requests


def test_an_http_error_of_the_server_is_named(start: Callable[..., Server], scene: Scene) -> None:
    scene.play(faults=[{"on": "tags", "status": 500, "text": "model list cache unavailable"}])
    with pytest.raises(MscliError, match="model list cache unavailable"):
        pull(order(start()), Heard(), QUICK)


def test_a_server_that_is_gone_is_named(start: Callable[..., Server]) -> None:
    server = start()
    server.process.terminate()
    server.process.wait()
    with pytest.raises(MscliError) as raised:
        pull(order(server), Heard(), QUICK)
    assert raised.value.details["cause"] == "ollama_not_running"


def test_a_proxy_for_the_world_is_not_used_for_this_machine(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert pull(order(start()), Heard(), QUICK).bytes_on_disk == SIZE


PULLER = """
import os, sys
from pathlib import Path
from mscli.engines.ollama.pull import Order, pull
class Listener:
    def progress(self, progress):
        print(progress.done_bytes, flush=True)
    def note(self, note): pass
pull(Order(sys.argv[1], True, sys.argv[2], int(sys.argv[3]), None), Listener())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_killed_pull_had_fetched_is_not_fetched_again(
    start: Callable[..., Server], scene: Scene, number: int
) -> None:
    scene.play(bytes_per_s=4_000_000)
    server = start()
    puller = subprocess.Popen(
        [sys.executable, "-c", PULLER, server.url, SMALL, str(SIZE)], stdout=subprocess.PIPE, text=True
    )
    assert puller.stdout is not None
    for line in puller.stdout:
        if int(line) > 500_000:
            break
    puller.send_signal(number)
    puller.wait(10)
    scene.play(bytes_per_s=10_000_000)
    heard = Heard()
    assert pull(order(server), heard, QUICK).bytes_on_disk == SIZE
    assert heard.codes == ["resumed"]
    assert fetched_twice(server) == 0


def test_unfinished_downloads_survive_a_server_that_mscli_starts_anew(
    start: Callable[..., Server], scene: Scene
) -> None:
    """Ollama deletes them when it starts; the environment that mscli gives it forbids that."""
    scene.play(bytes_per_s=4_000_000)
    first = start(OLLAMA_NOPRUNE="1")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(order(first), Heard(at=500_000, act=stop))
    scene.play(bytes_per_s=10_000_000)
    os.kill(first.process.pid, signal.SIGTERM)
    first.process.wait(10)
    second, heard = start(OLLAMA_NOPRUNE="1"), Heard()
    assert pull(order(second), heard).bytes_on_disk == SIZE
    assert heard.codes == ["resumed"]
    assert fetched_twice(second) == 0


def test_the_folder_of_another_user_is_no_reason_to_fail(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start()
    hidden = Order(server.url, True, SMALL, SIZE, Path("/proc/1/root/models"))
    assert pull(hidden, Heard()).bytes_on_disk == SIZE
