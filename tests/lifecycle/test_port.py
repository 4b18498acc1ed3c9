"""Ports: free or taken, and by whom."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from mscli.lifecycle import port


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_not_free_and_names_its_owner(taken: int) -> None:
    assert not port.free("127.0.0.1", taken)
    assert port.listening(taken)
    assert port.owner(taken) == os.getpid()
    assert str(os.getpid()) in port.describe_owner(taken)


def test_a_port_is_free_again_after_its_server_closed(taken: int) -> None:
    with socket.create_connection(("127.0.0.1", taken)) as link:
        link.close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    assert port.free("127.0.0.1", number)
    assert not port.listening(number)
    assert port.owner(number) is None


def test_choose_passes_over_taken_and_claimed_ports(taken: int) -> None:
    chosen = port.choose("127.0.0.1", taken, {taken + 1})
    assert chosen is not None
    assert chosen > taken + 1


def test_choose_never_leaves_the_range_of_ports() -> None:
    assert port.choose("127.0.0.1", 65535, {65535}) is None


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError, match="assign"):
        port.free("192.0.2.1", 8000)


def test_a_claimed_port_is_passed_over_until_the_claim_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    held = port.claim(number)
    assert held is not None
    with held:
        assert port.claim(number) is None
        assert port.choose("127.0.0.1", number, ()) != number
    assert port.choose("127.0.0.1", number, ()) == number


def test_a_port_that_is_kept_for_its_server_is_chosen_by_nobody_else_and_can_be_claimed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    with port.kept(number), port.kept(number):  # two restarts at once: the second finds the first done
        assert port.choose("127.0.0.1", number, ()) != number
        claimed = port.claim(number)
        assert claimed is not None
        claimed.close()
    assert port.choose("127.0.0.1", number, ()) == number
