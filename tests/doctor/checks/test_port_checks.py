"""The area `ports`: ports that are really taken, by processes that are really there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.doctor.visits import Doctor
from support.instances.instance_processes import Instances
from support.weights.hub_profile import own_profile

from mscli.doctor.checks.check import CheckContext
from mscli.doctor.checks.ports import port_owner
from mscli.inventory.ports import addresses
from mscli.lifecycle.launch import FIRST_PORT
from mscli.paths import places

PORTS = ("--only", "ports")
LISTENER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[-1])))
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def instances(home: Path) -> Iterator[Instances]:
    made = Instances(home)
    yield made
    made.stop()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_free_port_is_fine(here: Doctor, home: Path) -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = next(port for port in range(low - 1, 1024, -1) if not addresses(port))
    own_profile(home, port=str(port))
    seen = here("tiny", *PORTS)
    assert (seen.code, [found["status"] for found in seen.of("ports.first")]) == (0, ["ok"])


def test_a_port_that_another_process_holds_is_named_with_it(here: Doctor, home: Path, taken: int) -> None:
    own_profile(home, port=str(taken))
    found = here("tiny", *PORTS).bad("ports.first")
    assert (found["status"], found["code"]) == ("warn", "port"), "`mscli up` takes the next one"
    assert str(os.getpid()) in found["seen"]
    assert f"takes {taken + 1}" in found["seen"] or "instead" in found["seen"]
    assert f"127.0.0.1:{taken}" in str(found["evidence"])


def test_the_default_port_is_looked_at_without_a_profile(here: Doctor) -> None:
    found = here(*PORTS).of("ports.first")
    assert str(FIRST_PORT) in found[0]["seen"]


def test_a_host_that_is_not_of_this_machine(doctor: Doctor, home: Path) -> None:
    own_profile(home, host="192.0.2.7")
    found = doctor("tiny", *PORTS).bad("ports.first")
    assert (found["status"], found["code"]) == ("fail", "port")
    assert "192.0.2.7" in found["seen"]


def test_a_port_among_the_outgoing_ones(here: Doctor, home: Path) -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    port = next(port for port in range(high, low, -1) if not addresses(port))
    own_profile(home, port=str(port))
    assert "outgoing" in here("tiny", *PORTS).bad("ports.first")["seen"]


def test_a_port_that_is_roots(home: Path, user_env: dict[str, str]) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 81 or addresses(81):
        pytest.skip("port 81 is nobody's privilege here, or taken")
    bound = ["setpriv", "--bounding-set", "-net_bind_service"] if os.geteuid() == 0 else []
    if bound and shutil.which("setpriv") is None:
        pytest.skip("no setpriv to take root's privileges away")
    own_profile(home, port="81")
    argv = [*bound, sys.executable, "-m", "mscli", "doctor", "tiny", *PORTS, "--json"]
    done = subprocess.run(argv, env=user_env, capture_output=True, text=True, timeout=60)
    found = json.loads(done.stdout)["data"]["findings"]
    assert [(each["status"], each["code"]) for each in found] == [("fail", "port")], "those after it are root's as well"
    assert "reserved (ports below 1024 need root)" in found[0]["seen"]


def test_our_own_instance_on_the_port_is_no_fault(here: Doctor, home: Path, instances: Instances) -> None:
    port = free_port()
    own_profile(home, port=str(port))
    instances.serving("mine", port)
    seen = here("tiny", *PORTS)
    assert seen.code == 0
    assert "mine" in seen.good("ports.first")["seen"]
    seen.good("ports.exposed")


def test_a_stopped_instance_whose_port_was_taken_meanwhile(here: Doctor, instances: Instances, taken: int) -> None:
    record = instances.record("pinned", None, owner="somebody", port=taken, stopped_at=2.0)
    instances.records.save(replace(record, request=replace(record.request, port=taken)))
    found = here(*PORTS).bad("ports.pinned")
    assert (found["status"], found["code"]) == ("warn", "port")
    assert "pinned" in found["seen"]


def test_a_listener_of_ours_without_a_key_is_open_to_the_network(here: Doctor, instances: Instances) -> None:
    instances.serving("wide", free_port(), host="0.0.0.0")
    found = here(*PORTS).bad("ports.exposed")
    assert (found["status"], found["code"]) == ("warn", None)
    assert "without an API key" in found["seen"]
    assert "0.0.0.0" in found["seen"]


def test_a_container_behind_dockers_proxy_is_named(tmp_path: Path) -> None:
    port, docker, proxy = free_port(), tmp_path / "docker", tmp_path / "docker-proxy"
    docker.write_text(f'#!/bin/sh\n[ "$3" = publish={port} ] && echo "web (nginx:latest)"\n')
    proxy.write_text(f"#!{sys.executable}\n{LISTENER}")
    for program in (docker, proxy):
        program.chmod(0o755)
    child = subprocess.Popen([proxy, "-host-port", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        ctx = CheckContext(places({"MSCLI_HOME": str(tmp_path)}), env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
        assert port_owner(ctx, port).words == "container web (nginx:latest)"
    finally:
        child.communicate(timeout=10)


def test_a_service_is_named_by_its_unit(tmp_path: Path, taken: int) -> None:
    cgroup = tmp_path / "proc" / str(os.getpid()) / "cgroup"
    cgroup.parent.mkdir(parents=True)
    cgroup.write_text("0::/system.slice/nginx.service\n")
    found = port_owner(CheckContext(places({"MSCLI_HOME": str(tmp_path)}), root=tmp_path), taken)
    assert found.unit == "nginx.service"
    assert found.stop == "sudo systemctl stop nginx.service"


def test_addresses_are_read_in_both_families() -> None:
    with socket.socket(socket.AF_INET6) as server:
        try:
            server.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 on this machine")
        server.listen()
        assert addresses(server.getsockname()[1]) == ("::1",)
