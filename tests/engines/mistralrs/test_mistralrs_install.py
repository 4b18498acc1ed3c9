"""Installing mistral.rs's program with CUDA: the archive for the GPUs, the driver and the C library here, checked."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from support.engines.releases import Releases
from support.planning.planned import on
from support.run_mscli import Mscli

from mscli.engines.installed import glibc
from mscli.engines.mistralrs.installation import build_for
from mscli.errors import Code, MscliError

Serve = Callable[[dict[str, bytes]], Releases]
Machine = Callable[..., dict[str, str]]
NEW = (2, 36)
NAME = "mistralrs-cuda130-sm89-x86_64-unknown-linux-gnu.tar.gz"
OLD_SYSTEM = (glibc() or (0,)) < (2, 35)


@pytest.mark.parametrize(
    ("cards", "driver", "machine", "archive"),
    [
        ("RTX 4090", "13.0", "x86_64", "mistralrs-cuda130-sm89-x86_64-unknown-linux-gnu.tar.gz"),
        ("RTX 4090", "13.4", "x86_64", "mistralrs-cuda132-sm89-x86_64-unknown-linux-gnu.tar.gz"),
        ("2x RTX 3090", "12.8", "x86_64", "mistralrs-cuda128-sm86-x86_64-unknown-linux-gnu.tar.gz"),
        ("A100 80GB", "12.9", "x86_64", "mistralrs-cuda128-sm80-x86_64-unknown-linux-gnu.tar.gz"),
        ("H100", "13.3", "x86_64", "mistralrs-cuda133-sm90-x86_64-unknown-linux-gnu.tar.gz"),
        ("H100", "13.2", "x86_64", "mistralrs-cuda131-sm90-x86_64-unknown-linux-gnu.tar.gz"),
        ("GB10", "12.9", "aarch64", "mistralrs-cuda129-sm121-aarch64-unknown-linux-gnu.tar.gz"),
        ("RTX 5090", "13.1", "AMD64", "mistralrs-cuda131-sm120-x86_64-unknown-linux-gnu.tar.gz"),
    ],
)
def test_the_newest_archive_that_the_driver_runs_is_taken(cards: str, driver: str, machine: str, archive: str) -> None:
    assert build_for(replace(on(cards), cuda=driver), machine, NEW).archive == archive


@pytest.mark.parametrize(
    ("cards", "driver", "machine", "system", "said"),
    [
        ("RTX 4090", "12.4", "x86_64", NEW, "they need a driver with CUDA 12.8, this one offers 12.4"),
        ("GB10", "12.8", "aarch64", NEW, "they need a driver with CUDA 12.9, this one offers 12.8"),
        ("T4", "13.0", "x86_64", NEW, "none is built for compute capability 7.5 on x86_64"),
        ("RTX 4090", "13.0", "aarch64", NEW, "none is built for compute capability 8.9 on aarch64"),
        ("RTX 4090", "13.0", "x86_64", (2, 31), "they need glibc 2.35, this machine has glibc 2.31"),
        ("RTX 4090", "13.0", "x86_64", None, "this machine has another C library"),
        ("RTX 4090", "13.0", "riscv64", NEW, "there is none for riscv64"),
        ("RTX 4090, RTX 3090", "13.0", "x86_64", NEW, "these GPUs have 8.6, 8.9"),
    ],
)
def test_what_no_archive_runs_on_is_said_with_the_way_on(
    cards: str, driver: str, machine: str, system: tuple[int, ...] | None, said: str
) -> None:
    with pytest.raises(MscliError) as refused:
        build_for(replace(on(cards), cuda=driver), machine, system)
    assert refused.value.code is Code.ENGINE_UNSUPPORTED
    assert said in refused.value.message
    assert "mscli profiles" in (refused.value.hint or "")


def archive(program: str = "echo mistralrs 0.9.2") -> bytes:
    """An archive as the project packs it: the program, and the CUDA libraries in a folder beside it."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in (("./mistralrs", f"#!/bin/sh\n{program}\n"), ("./lib/libcudart.so.13", "library")):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, BytesIO(content.encode()))
    return packed.getvalue()


@pytest.fixture
def published(serve: Serve) -> Callable[..., Releases]:
    """A function: an archive, and what its digest is said to be -> a release that holds it."""

    def made(packed: bytes, digest: str | None = None) -> Releases:
        releases = serve({f"/files/{NAME}": packed})
        told = f"sha256:{hashlib.sha256(packed).hexdigest()}" if digest is None else digest
        asset = {"name": NAME, "digest": told, "browser_download_url": f"{releases.url}/files/{NAME}"}
        releases.files["/tags/v0.9.2"] = json.dumps({"assets": [asset]}).encode()
        return releases

    return made


def env_of(machine: Machine, releases: Releases) -> dict[str, str]:
    return {**machine("rtx4090"), "MSCLI_MISTRALRS_RELEASES": f"{releases.url}/tags", "PATH": "/usr/bin:/bin"}


@pytest.mark.skipif(OLD_SYSTEM, reason="this system's C library is too old for the archives")
def test_it_is_put_into_a_folder_of_its_own_and_serves_on_the_gpu(
    mscli: Mscli, machine: Machine, published: Callable[..., Releases], home: Path
) -> None:
    env = env_of(machine, published(archive()))
    before = mscli("up", "small-isq", "--dry-run", "--json", env=env)
    assert any("installs mistral.rs 0.9.2 (CUDA 13.0, sm89) first" in note for note in before.data["notes"])
    done = mscli("engines", "install", "mistral.rs", "--json", env=env)
    assert done.code == 0, done.out
    own = home / "data" / "engines" / "mistralrs-program"
    assert (own / "lib" / "libcudart.so.13").is_file()
    plan = mscli("up", "small-isq", "--dry-run", "--json", env=env)
    assert plan.data["plan"]["engine_state"] == "ready"
    assert str(own / "mistralrs") in plan.out
    assert [path.name for path in own.parent.iterdir()] == ["mistralrs-program"]


@pytest.mark.skipif(OLD_SYSTEM, reason="this system's C library is too old for the archives")
@pytest.mark.parametrize(
    ("packed", "digest", "said"),
    [
        (archive(), "sha256:" + "0" * 64, "does not match the release's sha256"),
        (archive(), "", "lists no sha256"),
        (archive("echo libcudart.so.13: cannot open shared object file >&2; exit 127"), None, "does not run"),
    ],
)
def test_what_is_damaged_unstated_or_does_not_run_is_not_left(
    packed: bytes, digest: str | None, said: str, mscli: Mscli, machine: Machine,
    published: Callable[..., Releases], home: Path,
) -> None:  # fmt: skip
    env = env_of(machine, published(packed, digest))
    refused = mscli("engines", "install", "mistral.rs", "--json", env=env)
    assert (refused.code, refused.envelope["ok"]) == (1, False)
    assert said in refused.error["message"]
    assert refused.error["hint"]
    assert not (home / "data" / "engines" / "mistralrs-program").exists()
