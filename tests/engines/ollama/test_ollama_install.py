"""Installing Ollama's release: fetched from a real HTTP server, resumed, checked, unpacked, and clear words offline."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from support.engines.releases import Heard, Releases, zstd_packed

from mscli.engines.ollama.installation import install
from mscli.errors import Code, MscliError

VERSION = "1.2.3"
PROGRAM = b"#!/bin/sh\necho 'ollama version is 1.2.3'\n"


def _archive(program: bytes = PROGRAM) -> bytes:
    plain = BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, content in (("bin/ollama", program), ("lib/ollama/libggml.so", bytes(range(256)) * 2000)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, BytesIO(content))
    return zstd_packed(plain.getvalue())


def _published(archive: bytes, sha256: str | None = None) -> dict[str, bytes]:
    name = "ollama-linux-amd64.tar.zst"
    row = f"{sha256 or hashlib.sha256(archive).hexdigest()}  ./{name}\n"
    return {f"/v{VERSION}/sha256sum.txt": row.encode(), f"/v{VERSION}/{name}": archive}


def _install(releases: Releases, folder: Path, heard: Heard | None = None) -> Path:
    found = install(heard or Heard(), version=VERSION, base=releases.url, folder=folder, machine="x86_64")
    return found.path


def test_the_release_is_unpacked_into_the_folder_and_its_program_runs(
    serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path
) -> None:
    heard = Heard()
    program = _install(serve(_published(_archive())), tmp_path / "ollama", heard)
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert said == "ollama version is 1.2.3\n"
    assert (tmp_path / "ollama" / "lib" / "ollama" / "libggml.so").stat().st_size == 512_000
    assert [p.name for p in tmp_path.iterdir()] == ["ollama"]
    assert [p.stage for p in heard.progresses][-1] == "done"


def test_a_broken_connection_goes_on_where_it_broke(
    serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _archive()
    releases = serve(_published(archive))
    releases.breaks = [len(archive) // 3]
    heard = Heard()
    _install(releases, tmp_path / "ollama", heard)
    ranges = [asked for path, asked in releases.asked if path.endswith("zst")]
    assert ranges == [None, f"bytes={len(archive) // 3}-"]
    assert {note.code for note in heard.notes} == {"retrying", "resumed"}


def test_a_later_call_goes_on_from_what_an_earlier_one_fetched(
    serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path
) -> None:
    archive = _archive()
    releases = serve(_published(archive))
    (tmp_path / f"ollama-{VERSION}-amd64.partial").write_bytes(archive[:100])
    _install(releases, tmp_path / "ollama")
    assert [asked for path, asked in releases.asked if path.endswith("zst")] == ["bytes=100-"]


def test_an_archive_with_another_hash_is_removed_and_what_was_installed_stays(
    serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path
) -> None:
    old = _install(serve(_published(_archive())), tmp_path / "ollama")
    with pytest.raises(MscliError) as raised:
        _install(serve(_published(_archive(b"#!/bin/sh\nexit 1\n"), sha256="0" * 64)), tmp_path / "ollama")
    assert raised.value.code == Code.DOWNLOAD_FAILED
    assert raised.value.details["cause"] == "corrupt_download"
    assert old.read_bytes() == PROGRAM
    assert [p.name for p in tmp_path.iterdir()] == ["ollama"]


def test_an_upgrade_replaces_what_was_installed(serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path) -> None:
    _install(serve(_published(_archive())), tmp_path / "ollama")
    (tmp_path / "ollama" / "lib" / "stale.so").touch()
    program = _install(serve(_published(_archive(b"#!/bin/sh\necho new\n"))), tmp_path / "ollama")
    assert program.read_bytes() == b"#!/bin/sh\necho new\n"
    assert not (tmp_path / "ollama" / "lib" / "stale.so").exists()


def test_it_goes_through_the_proxy_that_the_environment_names(
    serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(_published(_archive()))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "")
    install(Heard(), version=VERSION, base="http://releases.test", folder=tmp_path / "ollama", machine="x86_64")
    assert proxy.proxied


def test_offline_it_says_what_cannot_be_reached_and_what_to_do(tmp_path: Path) -> None:
    nowhere = Releases({}, "http://127.0.0.1:9")
    with pytest.raises(MscliError) as raised:
        _install(nowhere, tmp_path / "ollama")
    assert raised.value.details["cause"] == "network_proxy"
    assert "127.0.0.1:9" in raised.value.message
    assert "HTTPS_PROXY" in raised.value.hint


def test_a_release_that_is_not_there_is_named(serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path) -> None:
    with pytest.raises(MscliError, match="404") as raised:
        _install(serve({}), tmp_path / "ollama")
    assert raised.value.details["cause"] == "model_not_found"


def test_a_page_in_place_of_the_checksums_is_not_taken_for_them(
    serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path
) -> None:
    releases = serve({f"/v{VERSION}/sha256sum.txt": b"<html>please log in</html>"})
    with pytest.raises(MscliError, match="lists no sha256"):
        _install(releases, tmp_path / "ollama")


def test_no_program_is_needed_to_unpack_it(
    serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _install(serve(_published(_archive())), tmp_path / "ollama").read_bytes() == PROGRAM


def test_a_machine_without_a_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MscliError) as raised:
        install(Heard(), folder=tmp_path / "ollama", machine="riscv64")
    assert raised.value.code == Code.ENGINE_UNSUPPORTED


def test_a_folder_that_may_not_be_written_is_named(
    serve: Callable[[dict[str, bytes]], Releases], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(MscliError) as raised:
        _install(serve(_published(_archive())), tmp_path / "taken" / "ollama")
    assert raised.value.code == Code.FILE
    assert "MSCLI_HOME" in raised.value.hint
