"""Starts of llama.cpp that fail, each for real, and what mscli makes of the log."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.llamacpp.llama_servers import LLAMA, LOOPBACK, PLAN, Rehearsal, weight_files
from support.tiny_models import TinyModels

from mscli.catalog.profile import OptionValue
from mscli.diagnosis.causes import Cause
from mscli.diagnosis.diagnose import start_failure
from mscli.weights.progress import WeightFiles

Damage = Callable[[bytes], bytes]


def diagnosed(rehearsal: Rehearsal, weights: WeightFiles, plan: object = PLAN, **more: object) -> Cause:
    """The cause of a start that failed with status 1, as llama-server's own failures do."""
    status, log = rehearsal.failure(weights, plan, **more)  # type: ignore[arg-type]
    assert status == 1, log
    return start_failure(log, LLAMA.name, status)


def test_a_taken_port_is_named(llama: Rehearsal, shipped: WeightFiles) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        cause = diagnosed(llama, shipped, port=port)

    assert cause.code == "port"
    assert str(port) in cause.summary
    assert str(port) in cause.remedy


def test_an_absent_model_is_named(llama: Rehearsal, tmp_path: Path) -> None:
    cause = diagnosed(llama, WeightFiles(str(tmp_path / "absent.gguf"), None, 0))

    assert cause.code == "model_not_found"
    assert str(tmp_path / "absent.gguf") in cause.summary


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        pytest.param(lambda data: data[:1_000_000], "corrupt_weights", id="cut off in the tensors"),
        pytest.param(lambda data: data[:300], "corrupt_weights", id="cut off in the metadata"),
        pytest.param(lambda data: b"", "corrupt_weights", id="empty"),
        pytest.param(lambda data: b"version https://git-lfs", "corrupt_weights", id="a Git LFS pointer"),
        pytest.param(lambda data: data.replace(b"llama", b"llamb", 1), "unknown_arch", id="another architecture"),
        pytest.param(lambda data: data.replace(b"tekken", b"tikken", 1), "gguf_unsupported", id="another tokenizer"),
        pytest.param(lambda data: b"GGUF\x63" + data[5:], "gguf_unsupported", id="a later GGUF"),
    ],
)
def test_a_file_that_cannot_be_loaded(
    llama: Rehearsal, shipped: WeightFiles, tmp_path: Path, damage: Damage, code: str
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(damage(Path(shipped.model).read_bytes()))

    assert diagnosed(llama, WeightFiles(str(broken), None, 0)).code == code


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(llama: Rehearsal, shipped: WeightFiles, tmp_path: Path) -> None:
    private = tmp_path / "private.gguf"
    private.write_bytes(Path(shipped.model).read_bytes())
    private.chmod(0)

    assert diagnosed(llama, WeightFiles(str(private), None, 0)).code == "permissions"


def test_an_absent_projector_is_named(llama: Rehearsal, shipped: WeightFiles, tmp_path: Path) -> None:
    cause = diagnosed(llama, replace(shipped, projector=str(tmp_path / "absent.gguf")))

    assert cause.code == "vision"
    assert str(tmp_path / "absent.gguf") in cause.summary


def test_a_language_model_is_no_projector(llama: Rehearsal, shipped: WeightFiles) -> None:
    assert diagnosed(llama, replace(shipped, projector=shipped.model)).code == "vision"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bogus": True}, "--bogus"),
        ({"ctx-size": "many"}, "--ctx-size"),
        ({"cache-type-k": "q9"}, "Unsupported cache type: q9"),
        ({"chat-template-file": "/does/not/exist"}, "/does/not/exist"),
    ],
)
def test_an_option_that_llama_server_does_not_take_is_named(
    llama: Rehearsal, shipped: WeightFiles, options: dict[str, OptionValue], named: str
) -> None:
    cause = diagnosed(llama, shipped, options=options)

    assert cause.code == "cli_flags"
    assert named in cause.summary


def test_a_kv_cache_beyond_the_memory_is_told_from_weights_beyond_it(llama: Rehearsal, tiny_model: TinyModels) -> None:
    plan = replace(PLAN, context=131072, images=0)
    cause = diagnosed(llama, weight_files(tiny_model(shape="kv24b")), plan, limits="ulimit -v 6000000")

    assert cause.code == "oom_kv"
    assert any("20480.00 MB" in line for line in cause.evidence), cause.evidence


def test_a_killed_process_points_to_the_kernels_memory_killer(llama: Rehearsal, shipped: WeightFiles) -> None:
    with llama.start(shipped) as server:
        server.wait_for(200)
        server.process.kill()
        status = server.process.wait()

    assert start_failure(server.log, LLAMA.name, status).code == "host_ram"


def test_a_start_that_still_runs_is_not_called_a_failure_of_anything(llama: Rehearsal, shipped: WeightFiles) -> None:
    with llama.start(shipped) as server:
        server.wait_for(200)
        cause = start_failure(server.log, LLAMA.name, None)

    assert cause.code == "unknown"
    assert "--timeout" in cause.remedy
