"""Listening sockets: the kernel's answer and its tables tell the same, and both name who listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from mscli.inventory import ports
from mscli.inventory.ports import addresses, listening, listens, owner, owner_uid


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        made = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"no {request.param} here")
    with made:
        yield made


def test_a_listening_port_has_an_owner_and_an_address(server: socket.socket) -> None:
    port = server.getsockname()[1]
    assert listening(port)
    assert (owner(port), owner_uid(port)) == (os.getpid(), os.geteuid())
    assert addresses(port) == (server.getsockname()[0],)
    assert listens(port, [os.getpid()]) is True
    assert listens(port, [os.getppid()]) is False


def test_the_tables_tell_what_the_kernel_answers(server: socket.socket) -> None:
    port, family = server.getsockname()[1], server.family
    assert isinstance(family, socket.AddressFamily)
    assert ports._asked(port, family) == list(ports._read(port, family))
    assert len(ports._asked(port, family)) == 1


def test_a_connection_alone_does_not_listen(server: socket.socket) -> None:
    address = server.getsockname()
    with socket.create_connection(address[:2]) as link, server.accept()[0]:
        assert not listening(link.getsockname()[1])
        server.close()
        assert not listening(address[1])
        assert listens(address[1], [os.getpid()]) is None
