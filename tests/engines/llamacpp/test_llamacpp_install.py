"""Installing llama.cpp's release: chosen by what GitHub's API says of it, resumed, checked, unpacked, then found."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from support.engines.releases import Heard, Releases
from support.llamacpp.llama_servers import LLAMA

from mscli.engines.llamacpp.installation import BUILDS, install
from mscli.errors import Code, MscliError

BUILD = "b7777"
NAME = f"llama-{BUILD}-bin-ubuntu-vulkan-x64.tar.gz"
PROGRAM = "#!/bin/sh\necho 'version: 7777 (abcdef0)'\n"
Serve = Callable[[dict[str, bytes]], Releases]


def _archive(program: str = PROGRAM, beside: str = "libggml-vulkan.so") -> bytes:
    """A release as llama.cpp packs it: everything in one folder, libraries beside the program, one by a link."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in (("llama-server", program.encode()), (beside, bytes(range(256)) * 100)):
            entry = tarfile.TarInfo(f"llama-{BUILD}/{name}")
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, BytesIO(content))
        link = tarfile.TarInfo(f"llama-{BUILD}/libggml.so")
        link.type, link.linkname = tarfile.SYMTYPE, "libggml-vulkan.so"
        tar.addfile(link)
    return packed.getvalue()


def _published(serve: Serve, archive: bytes, sha256: str | None = None, name: str = NAME) -> Releases:
    """A server with one release: the API's answer, and the archive that it points to."""
    releases = serve({f"/files/{name}": archive})
    asset = {
        "name": name,
        "size": len(archive),
        "digest": f"sha256:{sha256 or hashlib.sha256(archive).hexdigest()}",
        "browser_download_url": f"{releases.url}/files/{name}",
    }
    releases.files[f"/tags/{BUILD}"] = json.dumps({"tag_name": BUILD, "assets": [asset]}).encode()
    return releases


def _install(releases: Releases, folder: Path, heard: Heard | None = None) -> Path:
    base = f"{releases.url}/tags"
    return install(heard or Heard(), version=BUILD, base=base, folder=folder, machine="x86_64").path


def _refused(releases: Releases, folder: Path) -> MscliError:
    with pytest.raises(MscliError) as raised:
        _install(releases, folder)
    return raised.value


def _ranges(releases: Releases) -> list[str | None]:
    return [asked for path, asked in releases.asked if path.endswith(NAME)]


def test_the_release_is_unpacked_and_its_program_tells_its_version(serve: Serve, tmp_path: Path) -> None:
    heard = Heard()
    releases = _published(serve, _archive())
    found = install(heard, version="7777", base=f"{releases.url}/tags", folder=tmp_path / "llama.cpp", machine="x86_64")
    assert (found.version, found.kind) == ("7777 (abcdef0)", "own")
    assert found.path == tmp_path / "llama.cpp" / "llama-server"
    assert (tmp_path / "llama.cpp" / "libggml.so").stat().st_size == 25_600
    assert [path.name for path in tmp_path.iterdir()] == ["llama.cpp"]
    assert "CUDA" in heard.notes[-1].message, "nobody says that this build does not use CUDA"


def test_what_was_installed_goes_after_path_and_before_the_wheel(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    base = f"{_published(serve, _archive()).url}/tags"
    own = install(Heard(), version=BUILD, base=base, machine="x86_64")
    assert LLAMA.locate() == own
    theirs = tmp_path / "bin" / "llama-server"
    theirs.parent.mkdir()
    theirs.write_text(PROGRAM)
    theirs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{theirs.parent}:/usr/bin:/bin")
    assert LLAMA.locate().path == theirs


def test_a_broken_connection_goes_on_where_it_broke(serve: Serve, tmp_path: Path) -> None:
    archive = _archive()
    releases = _published(serve, archive)
    releases.breaks = [len(archive) // 3]
    heard = Heard()
    _install(releases, tmp_path / "llama.cpp", heard)
    assert _ranges(releases) == [None, f"bytes={len(archive) // 3}-"]
    assert {note.code for note in heard.notes} == {"retrying", "resumed", "vulkan_build"}


def test_a_later_call_goes_on_from_what_an_earlier_one_fetched(serve: Serve, tmp_path: Path) -> None:
    archive = _archive()
    releases = _published(serve, archive)
    (tmp_path / f"llama.cpp-{BUILD}-x64.partial").write_bytes(archive[:100])
    _install(releases, tmp_path / "llama.cpp")
    assert _ranges(releases) == ["bytes=100-"]


def test_an_archive_with_another_digest_is_removed_and_what_was_installed_stays(serve: Serve, tmp_path: Path) -> None:
    old = _install(_published(serve, _archive()), tmp_path / "llama.cpp")
    fault = _refused(_published(serve, _archive("#!/bin/sh\nexit 1\n"), sha256="0" * 64), tmp_path / "llama.cpp")
    assert fault.details["cause"] == "corrupt_download"
    assert old.read_text() == PROGRAM
    assert [path.name for path in tmp_path.iterdir()] == ["llama.cpp"]


def test_a_program_that_does_not_run_here_replaces_nothing(serve: Serve, tmp_path: Path) -> None:
    old = _install(_published(serve, _archive()), tmp_path / "llama.cpp")
    too_new = "#!/bin/sh\necho \"version 'GLIBC_2.99' not found\" >&2\nexit 1\n"
    fault = _refused(_published(serve, _archive(too_new)), tmp_path / "llama.cpp")
    assert fault.code == Code.ENGINE_MISSING
    assert "GLIBC_2.99" in fault.message
    assert old.read_text() == PROGRAM


@pytest.mark.parametrize("name", ["../../../outside", "../../llama.cpp-outside"])
def test_an_entry_that_leaves_the_folder_is_refused(serve: Serve, tmp_path: Path, name: str) -> None:
    fault = _refused(_published(serve, _archive(beside=name)), tmp_path / "deep" / "llama.cpp")
    assert fault.details["cause"] == "corrupt_download"
    assert "outside" in fault.message
    assert not list(tmp_path.rglob("*outside"))


def test_offline_it_says_what_cannot_be_reached_and_what_to_do(tmp_path: Path) -> None:
    fault = _refused(Releases({}, "http://127.0.0.1:9"), tmp_path / "llama.cpp")
    assert fault.details["cause"] == "network_proxy"
    assert "127.0.0.1:9" in fault.message
    assert "pip install 'mscli[embedded]'" in fault.hint


def test_a_build_that_is_not_there_is_named(serve: Serve, tmp_path: Path) -> None:
    fault = _refused(serve({}), tmp_path / "llama.cpp")
    assert fault.details["cause"] == "model_not_found"
    assert BUILD in fault.message


def test_a_release_without_an_archive_for_this_machine_is_named(serve: Serve, tmp_path: Path) -> None:
    releases = _published(serve, _archive(), name=f"llama-{BUILD}-bin-macos-arm64.tar.gz")
    fault = _refused(releases, tmp_path / "llama.cpp")
    assert fault.details["cause"] == "model_not_found"
    assert NAME in fault.message


@pytest.mark.parametrize("answer", [b"<html>please log in</html>", b'{"assets": [{}]}', b'{"message": "no"}'])
def test_a_page_in_place_of_the_api_is_not_taken_for_it(serve: Serve, tmp_path: Path, answer: bytes) -> None:
    fault = _refused(serve({f"/tags/{BUILD}": answer}), tmp_path / "llama.cpp")
    assert fault.details["cause"] == "network_proxy"


def test_a_release_without_a_digest_is_not_trusted(serve: Serve, tmp_path: Path) -> None:
    releases = _published(serve, _archive(), sha256="none")
    assert "lists no sha256" in _refused(releases, tmp_path / "llama.cpp").message
    assert _ranges(releases) == [], "an archive was fetched that nothing could check"


def test_a_machine_without_a_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MscliError) as raised:
        install(Heard(), folder=tmp_path / "llama.cpp", machine="riscv64")
    assert raised.value.code == Code.ENGINE_UNSUPPORTED


def test_a_version_that_is_no_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MscliError) as raised:
        install(Heard(), version="../../x", folder=tmp_path / "llama.cpp", machine="x86_64")
    assert raised.value.code == Code.USAGE


def _cuda_archive(*names: str) -> bytes:
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            content = PROGRAM.encode() if name.endswith("llama-server") else b"library"
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, BytesIO(content))
    return packed.getvalue()


def test_the_build_with_cuda_comes_with_the_libraries_of_cuda_from_the_archive_beside_it(
    serve: Serve, tmp_path: Path
) -> None:
    name = f"llama-{BUILD}-bin-ubuntu-cuda-13.4-x64"
    parts = {
        f"{name}.tar.gz": _cuda_archive(f"llama-{BUILD}/llama-server", f"llama-{BUILD}/libggml-cuda.so"),
        f"cudart-{name}.tar.gz": _cuda_archive(f"cudart-{name}/libcudart.so.13", f"cudart-{name}/libcublas.so.13"),
        f"{name.replace('13.4', '12.8')}.tar.gz": b"not asked for",
    }
    releases = serve({f"/files/{part}": content for part, content in parts.items()})
    assets = [
        {"name": part, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
         "browser_download_url": f"{releases.url}/files/{part}"}
        for part, content in parts.items()
    ]  # fmt: skip
    releases.files[f"/tags/{BUILD}"] = json.dumps({"assets": assets}).encode()
    base, folder = f"{releases.url}/tags", tmp_path / "llama.cpp"
    found = install(Heard(), version=BUILD, base=base, folder=folder, machine="x86_64", build=BUILDS[0])
    assert (found.kind, found.path) == ("own", folder / "llama-server")
    assert {path.name for path in folder.iterdir()} == {
        "llama-server", "libggml-cuda.so", "libcudart.so.13", "libcublas.so.13",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["llama.cpp"]
    del releases.files[f"/files/cudart-{name}.tar.gz"]
    with pytest.raises(MscliError, match="404"):
        install(Heard(), version=BUILD, base=base, folder=tmp_path / "other", machine="x86_64", build=BUILDS[0])
    assert not (tmp_path / "other").exists(), "a build without its libraries is in place"
