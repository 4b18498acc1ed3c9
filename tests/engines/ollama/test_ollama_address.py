"""Finding the server: OLLAMA_HOST as Ollama reads it, what answers, and who runs it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.ollama.standins import Scene, Server

from mscli.engines.ollama.api import Api, Refusal
from mscli.engines.ollama.engine import Ollama
from mscli.engines.ollama.installation import VERSION_TIMEOUT_S
from mscli.engines.ollama.server import Address, Service, address, find, look, systemd_service
from mscli.errors import Code, MscliError
from mscli.instances.state import answer, probe


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", Address("http", "127.0.0.1", 11434)),
        ("1.2.3.4", Address("http", "1.2.3.4", 11434)),
        (":1234", Address("http", "127.0.0.1", 1234)),
        ("1.2.3.4:1234", Address("http", "1.2.3.4", 1234)),
        ("example.com", Address("http", "example.com", 11434)),
        ("http://example.com", Address("http", "example.com", 80)),
        ("https://example.com", Address("https", "example.com", 443)),
        ("https://example.com:1234/ollama/", Address("https", "example.com", 1234, "ollama")),
        ("tcp://10.0.0.1:5000", Address("tcp", "10.0.0.1", 5000)),
        ("example.com/", Address("http", "example.com", 11434)),
        ("0.0.0.0", Address("http", "127.0.0.1", 11434)),
        ("0.0.0.0:8080", Address("http", "127.0.0.1", 8080)),
        ("[::]:8080", Address("http", "::1", 8080)),
        ("::1", Address("http", "::1", 11434)),
        ("[::1]", Address("http", "::1", 11434)),
        ("[::1]:1337", Address("http", "::1", 1337)),
        ("1.2.3.4:99999", Address("http", "1.2.3.4", 11434)),
        ("1.2.3.4:", Address("http", "1.2.3.4", 11434)),
        ("example.com:abc", Address("http", "example.com", 11434)),
        (' "127.0.0.1:4000" ', Address("http", "127.0.0.1", 4000)),
        ("'localhost:4000'", Address("http", "localhost", 4000)),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(value: str, expected: Address) -> None:
    assert address(value) == expected


@pytest.fixture
def no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that puts a systemctl on PATH which tells of an Ollama service as systemd prints it."""

    def tell(**properties: object) -> None:
        shown = {"LoadState": "loaded", "ActiveState": "active", "MainPID": 0, "User": "ollama", **properties}
        folder = tmp_path / "systemd"
        folder.mkdir(exist_ok=True)
        (folder / "shown").write_text("".join(f"{name}={value}\n" for name, value in shown.items()))
        (folder / "systemctl").write_text(f'#!/bin/sh\nexec cat "{folder}/shown"\n')
        (folder / "systemctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return tell


@pytest.mark.usefixtures("no_systemd")
def test_the_server_at_ollama_host_is_found_with_its_process_and_user(start: Callable[..., Server]) -> None:
    server = start()
    found = find({"OLLAMA_HOST": server.host})
    assert found is not None
    assert found.version == "0.32.15"
    assert (found.address.port, found.pid) == (server.port, server.process.pid)
    assert found.owner.startswith(f"PID {server.process.pid} (")
    assert found.models == server.models


@pytest.mark.usefixtures("no_systemd")
def test_a_models_folder_that_is_set_for_the_server_is_known(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(OLLAMA_MODELS=str(tmp_path / "elsewhere"))
    found = find({"OLLAMA_HOST": server.host})
    assert found is not None
    assert found.models == tmp_path / "elsewhere"


@pytest.mark.usefixtures("no_systemd")
def test_nothing_is_found_where_nothing_listens(nobody: str) -> None:
    assert find({"OLLAMA_HOST": nobody}) is None


@pytest.mark.usefixtures("no_systemd")
def test_another_server_on_the_port_is_not_taken_for_ollama(start: Callable[..., Server], scene: Scene) -> None:
    scene.play(version=None)
    assert find({"OLLAMA_HOST": start().host}) is None


@pytest.mark.parametrize("value", ["https://ollama.example", "http://127.0.0.1:80/ollama"])
def test_an_address_that_mscli_cannot_serve_through_is_refused(value: str) -> None:
    with pytest.raises(MscliError) as raised:
        find({"OLLAMA_HOST": value})
    assert raised.value.code == Code.ENGINE_UNSUPPORTED
    assert value in raised.value.message


def test_a_server_on_another_machine_is_told_from_one_on_this() -> None:
    seen = look(Address("http", "192.0.2.7", 11434), "0.30.0")
    assert not seen.local
    assert seen.owner == "a server at 192.0.2.7, not on this machine"
    assert seen.models is None


def test_the_service_is_found_at_the_address_that_only_its_unit_names(
    start: Callable[..., Server], systemd: Callable[..., None], nobody: str
) -> None:
    server = start()
    systemd(MainPID=server.process.pid, Environment=f'"OLLAMA_HOST=0.0.0.0:{server.port}" PATH=/usr/bin')
    found = find({"OLLAMA_HOST": nobody})
    assert found is not None
    assert found.address.port == server.port
    assert found.owner == "systemd service ollama, user ollama"


def test_a_process_that_is_not_the_services_is_not_called_the_service(
    start: Callable[..., Server], systemd: Callable[..., None]
) -> None:
    server = start()
    systemd(MainPID=1, Environment="")
    found = find({"OLLAMA_HOST": server.host})
    assert found is not None
    assert found.service is None
    assert f"PID {server.process.pid}" in found.owner


def test_what_systemd_tells_of_the_service(systemd: Callable[..., None]) -> None:
    systemd(
        Environment='OLLAMA_MODELS=/srv/models "OLLAMA_ORIGINS=http://a b"',
        FragmentPath="/etc/systemd/system/ollama.service",
        ExecStart="{ path=/usr/local/bin/ollama ; argv[]=/usr/local/bin/ollama serve ; ignore_errors=no }",
    )
    environment = {"OLLAMA_MODELS": "/srv/models", "OLLAMA_ORIGINS": "http://a b"}
    program = Path("/usr/local/bin/ollama")
    unit = "/etc/systemd/system/ollama.service"
    assert systemd_service() == Service(True, None, "ollama", environment, unit, program)


def test_a_service_that_is_not_there_is_none(systemd: Callable[..., None]) -> None:
    systemd(LoadState="not-found")
    assert systemd_service() is None


@pytest.mark.usefixtures("no_systemd")
def test_without_systemd_there_is_no_service() -> None:
    assert systemd_service() is None


def test_a_server_on_ipv6_answers_to_its_address_in_brackets(start: Callable[..., Server]) -> None:
    server = start(OLLAMA_HOST="[::1]:0")
    assert probe("::1", server.port, "/api/version").status == 200
    assert answer("::1", server.port, "/api/ps") == {"models": []}
    assert Api("::1", server.port).version() == "0.32.15"


class Unnamed(BaseHTTPRequestHandler):
    """What a server bound to loopback answers to a Host header that is neither an address nor a local name."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_name_that_the_server_does_not_answer_to_is_told_as_that() -> None:
    with HTTPServer(("127.0.0.1", 0), Unnamed) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(Refusal, match="rejects the host name") as raised:
            Api("127.0.0.1", server.server_port).version()
    assert raised.value.status == 403


def test_a_path_that_an_older_server_lacks_is_told_from_a_model_that_is_missing(start: Callable[..., Server]) -> None:
    api = Api("127.0.0.1", start().port)
    with pytest.raises(Refusal, match="has no /api/nope") as raised:
        api._ask("GET", "/api/nope")
    assert raised.value.status != 404
    with pytest.raises(Refusal) as raised:
        api.load("nobody", -1)
    assert raised.value.status == 404


def test_something_that_accepts_and_never_answers_costs_a_second(
    program: Path, user_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real `ollama --version` asks the server at OLLAMA_HOST first, and waits for it without limit."""
    for name in ("PATH", "OLLAMA_STANDIN"):
        monkeypatch.setenv(name, user_env[name])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        assert Ollama().locate().version == "0.32.15"
        assert time.monotonic() - begun < VERSION_TIMEOUT_S
        begun = time.monotonic()
        assert Ollama().running() is None
        assert time.monotonic() - begun < 3
