"""The area `network`: a hub on loopback with its faults, proxies, certificates and silence."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.doctor.visits import Doctor
from support.hub import Hub
from support.hub.company import proxying, root_certificate
from support.hub.faults import API, STATUS
from support.hub.server import black_hole
from support.weights.hub_profile import GGUF, REPOSITORY, at

GOOD, STALE = "hf_" + "a" * 34, "hf_" + "b" * 34
NETWORK = ("--only", "network")


def test_a_hub_that_answers_and_hands_out_its_bytes(here: Doctor, hub: Hub, tiny: str) -> None:
    seen = here(tiny, *NETWORK, env=at(hub))
    assert seen.code == 0
    assert {found["status"] for found in seen.findings} == {"ok"}, seen.findings
    assert f"localhost:{hub.port}" in seen.good("network.repository")["seen"], "the host of the bytes must be named"
    assert any(asked[0] == "GET" and asked[1].startswith("/cdn/") for asked in hub.requests), "a byte is really fetched"


def test_without_a_profile_only_the_api_is_asked(here: Doctor, hub: Hub) -> None:
    assert here(*NETWORK, env=at(hub)).code == 0
    assert {path for _, path in hub.requests} == {"/api/models"}


def test_a_name_that_nobody_knows(here: Doctor, tiny: str) -> None:
    env = {"HF_ENDPOINT": "http://hub.invalid"}
    seen = here(tiny, *NETWORK, env=env)
    found = seen.bad("network.hub")
    assert (seen.code, found["status"], found["code"]) == (5, "fail", "network_proxy")
    assert "hub.invalid" in found["seen"]
    assert "DNS" in found["remedy"]
    assert [each["status"] for each in seen.of("network.repository")] == ["skipped"]


def test_a_machine_without_a_network_is_only_warned(here: Doctor) -> None:
    seen = here(*NETWORK, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert (seen.code, seen.bad("network.hub")["status"]) == (0, "warn")


def test_a_login_in_the_hubs_address_is_not_shown(here: Doctor, tiny: str) -> None:
    seen = here(tiny, *NETWORK, env={"HF_ENDPOINT": "http://me:secret@127.0.0.1:9"})
    assert seen.bad("network.hub")["code"] == "network_proxy"
    assert "secret" not in seen.text


def test_an_address_without_its_beginning(here: Doctor) -> None:
    found = here(*NETWORK, env={"HF_ENDPOINT": "hub.example"}).bad("network.hub")
    assert "https://" in found["seen"]


def test_weights_that_are_here_need_no_network(here: Doctor, tiny: str, snapshot: Path) -> None:
    seen = here(tiny, *NETWORK, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert snapshot.is_dir()
    assert (seen.code, seen.bad("network.hub")["status"]) == (0, "warn")


def test_weights_that_come_with_mscli_need_no_network(here: Doctor) -> None:
    seen = here("rehearsal", *NETWORK, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert {found["status"] for found in seen.findings} == {"skipped"}


def test_offline_mode_asks_nobody(here: Doctor, hub: Hub, tiny: str) -> None:
    seen = here(tiny, *NETWORK, env=at(hub, HF_HUB_OFFLINE="1"))
    assert {found["status"] for found in seen.findings} == {"skipped"}
    assert hub.requests == []


def test_a_host_that_never_answers_is_given_up_in_time(here: Doctor, tiny: str) -> None:
    with black_hole() as url:
        seen = here(tiny, *NETWORK, env={"HF_ENDPOINT": url})
    assert [found["status"] for found in seen.findings if found["status"] == "crashed"] == []
    assert seen.bad("network.hub")["code"] == "network_proxy"
    assert "in time" in seen.bad("network.hub")["seen"] or "within" in seen.bad("network.hub")["seen"]
    assert seen.seconds < 6.0


def test_a_certificate_that_nobody_vouches_for(doctor: Doctor, tiny: str, tmp_path: Path) -> None:
    with Hub(certificate=root_certificate(tmp_path)) as hub:
        found = doctor(tiny, *NETWORK, env=at(hub)).bad("network.hub")
    assert (found["status"], found["code"]) == ("fail", "network_proxy")
    assert "not trusted" in found["seen"]
    assert "SSL_CERT_FILE" in found["remedy"]


def test_a_root_of_ones_own_is_heeded(doctor: Doctor, tmp_path: Path) -> None:
    certificate = root_certificate(tmp_path)
    with Hub(certificate=certificate) as hub:
        doctor(*NETWORK, env=at(hub, SSL_CERT_FILE=str(certificate))).good("network.hub")


def test_a_proxy_that_wants_a_login_is_named_without_its_password(doctor: Doctor, tiny: str, tmp_path: Path) -> None:
    with Hub(certificate=root_certificate(tmp_path)) as hub, proxying("407 Proxy Authentication Required") as proxy:
        env = at(hub, HTTPS_PROXY=f"http://me:secret@{proxy.address}")
        seen = doctor(tiny, *NETWORK, env=env)
    found = seen.bad("network.hub")
    assert (found["status"], found["code"]) == ("fail", "network_proxy")
    assert "407" in found["seen"]
    assert f"***@{proxy.address}" in str(found["evidence"])
    assert "secret" not in seen.text


def test_a_page_in_place_of_a_hub(here: Doctor, tiny: str) -> None:
    class Portal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "25")
            self.end_headers()
            self.wfile.write(b"<html>please log in</html>"[:25])

        def log_message(self, format: str, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Portal) as portal:
        Thread(target=portal.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        found = here(tiny, *NETWORK, env={"HF_ENDPOINT": f"http://127.0.0.1:{portal.server_port}"}).bad("network.hub")
        portal.shutdown()
    assert found["code"] == "network_proxy"
    assert "login page" in found["seen"]


def test_too_many_requests(here: Doctor, hub: Hub, tiny: str) -> None:
    hub.fault(STATUS, API, times=None, status=429, headers={"Retry-After": "55"})
    seen = here(tiny, *NETWORK, env=at(hub))
    assert (seen.bad("network.hub")["status"], seen.bad("network.hub")["code"]) == ("fail", "hf_rate_limit")
    assert "55 s" in seen.bad("network.hub")["remedy"]


def test_a_host_of_bytes_that_is_not_reached(here: Doctor, hub: Hub, tiny: str) -> None:
    hub.cdn_url = "http://localhost:9"
    seen = here(tiny, *NETWORK, env=at(hub))
    seen.good("network.hub")
    found = seen.bad("network.repository")
    assert (found["status"], found["code"]) == ("fail", "network_proxy")
    assert "localhost:9" in found["seen"]


def test_a_stale_token_is_worse_than_none(here: Doctor, hub: Hub, tiny: str) -> None:
    hub.tokens = {GOOD: True}
    here(tiny, *NETWORK, env=at(hub, HF_TOKEN=GOOD)).good("network.token")
    seen = here(tiny, *NETWORK, env=at(hub, HF_TOKEN=STALE))
    found = seen.bad("network.token")
    assert (seen.code, found["status"], found["code"]) == (5, "fail", "hf_gated")
    assert "HF_TOKEN" in found["seen"]
    assert STALE not in seen.text


def test_the_token_of_a_login_is_sent(here: Doctor, hub: Hub, tmp_path: Path) -> None:
    hub.tokens = {GOOD: True}
    kept = tmp_path / "hf" / "token"
    kept.parent.mkdir()
    kept.write_text(GOOD)
    seen = here(*NETWORK, env=at(hub, HF_HOME=str(kept.parent)))
    assert str(kept) in seen.good("network.token")["seen"]


@pytest.mark.parametrize("token", [None, GOOD])
def test_a_gate_that_was_not_passed(here: Doctor, hub: Hub, tiny: str, token: str | None) -> None:
    hub.tokens = {GOOD: True}
    hub.repositories[REPOSITORY].accepted = set()
    seen = here(tiny, *NETWORK, env=at(hub, **({"HF_TOKEN": token} if token else {})))
    found = seen.bad("network.repository")
    assert (found["status"], found["code"]) == ("fail", "hf_gated")
    assert REPOSITORY in found["seen"]
    hub.repositories[REPOSITORY].accepted = {GOOD}
    if token:
        here(tiny, *NETWORK, env=at(hub, HF_TOKEN=token)).good("network.repository")


def test_a_repository_without_the_file_wanted(here: Doctor, hub: Hub, tiny: str) -> None:
    del hub.repositories[REPOSITORY].files[GGUF]
    found = here(tiny, *NETWORK, env=at(hub)).bad("network.repository")
    assert (found["status"], found["code"]) == ("fail", "model_not_found")
    assert GGUF in found["seen"]


def test_xet_storage_that_is_not_reached(here: Doctor, hub: Hub, tiny: str) -> None:
    files = hub.repositories[REPOSITORY].files
    hub.add(REPOSITORY, {name: file.content for name, file in files.items()}, xet=True)
    hub.cas_url = "http://127.0.0.1:9"
    seen = here(tiny, *NETWORK, env=at(hub))
    assert [found["status"] for found in seen.of("network.repository")] == ["ok", "warn"]
    assert "HF_HUB_DISABLE_XET" in seen.of("network.repository")[1]["command"]
    again = here(tiny, *NETWORK, env=at(hub, HF_HUB_DISABLE_XET="1"))
    again.good("network.repository")


def test_ollamas_registry_is_asked_from_this_process_and_says_so(doctor: Doctor, tmp_path: Path) -> None:
    with proxying("403 Forbidden") as proxy:
        found = doctor("small-q4", *NETWORK, env={"HTTPS_PROXY": f"http://{proxy.address}"}).bad("network.ollama")
    assert (found["status"], found["code"]) == ("warn", "network_proxy")
    assert "checked from mscli" in found["seen"]
    certificate = root_certificate(tmp_path, "registry.ollama.ai")
    with Hub(certificate=certificate) as hub, proxying(leads_to=("127.0.0.1", hub.port)) as proxy:
        env = {"HTTPS_PROXY": f"http://{proxy.address}", "SSL_CERT_FILE": str(certificate)}
        found = doctor("small-q4", *NETWORK, env=env).good("network.ollama")
    assert "the Ollama server downloads" in found["seen"]


@pytest.fixture
def h100(machine: Callable[..., dict[str, str]]) -> dict[str, str]:
    """A machine that vLLM would be installed on, with a package index and no hub."""
    index = "http://127.0.0.1:9/simple"
    return {**machine("h100-80"), "HF_HUB_OFFLINE": "1", "UV_DEFAULT_INDEX": index, "PIP_INDEX_URL": index}


def test_a_package_index_that_cannot_be_reached_is_named_with_the_setting(doctor: Doctor, h100: dict[str, str]) -> None:
    found = doctor("small-bf16", *NETWORK, env=h100).bad("network.engine")

    assert (found["status"], found["code"]) == ("warn", "network_proxy")
    assert "127.0.0.1:9" in found["seen"]
    assert "vLLM 0.32.0" in found["seen"]
    assert "UV_DEFAULT_INDEX" in found["remedy"]


def test_the_index_that_the_engine_comes_from_is_asked(doctor: Doctor, h100: dict[str, str], hub: Hub) -> None:
    index = f"http://localhost:{hub.port}/simple"
    seen = doctor("small-bf16", *NETWORK, env={**h100, "UV_DEFAULT_INDEX": index, "PIP_INDEX_URL": index})

    assert f"localhost:{hub.port}" in seen.good("network.engine")["seen"]
