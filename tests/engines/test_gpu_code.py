"""What a program can run on is told by the libraries that it needs and has beside it, without running it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mscli.engines.installed import GpuCode, gpu_code

CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler")
CODE = "int main(void) { return 0; }\n"


def built(path: Path, *needed: Path, code: str = CODE, runpath: str = "$ORIGIN", shared: bool = False) -> Path:
    """A program or library at `path` that needs the libraries `needed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = ["-shared", "-fPIC", f"-Wl,-soname,{path.name}"] if shared else []
    libraries = [word for each in needed for word in (f"-L{each.parent}", f"-l:{each.name}")]
    linking = ["-Wl,--no-as-needed", f"-Wl,-rpath,{runpath}", "-Wl,--allow-shlib-undefined"]
    command = [str(CC), "-x", "c", "-", "-x", "none", *kind, *linking, "-o", str(path), *libraries]
    done = subprocess.run(command, input=code, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def library(path: Path, *needed: Path) -> Path:
    return built(path, *needed, code="int answer(void) { return 42; }\n", shared=True)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """llama-server as the project packs it: libggml beside it, which loads its backends when it runs."""
    ggml = library(tmp_path / "release" / "libggml.so.0")
    library(tmp_path / "release" / "libggml-cpu-haswell.so")
    return built(tmp_path / "release" / "llama-server", ggml)


def cudart(tmp_path: Path, major: int) -> Path:
    return library(tmp_path / "cuda" / f"libcudart.so.{major}")


def test_a_release_for_the_cpu_has_no_gpu_code(release: Path) -> None:
    assert gpu_code(release) == GpuCode(False)


@pytest.mark.parametrize("major", [12, 13])
def test_a_backend_beside_the_program_tells_its_cuda(release: Path, tmp_path: Path, major: int) -> None:
    library(release.parent / "libggml-cuda.so", cudart(tmp_path, major))
    assert gpu_code(release) == GpuCode(True, major)
    link = tmp_path / "bin" / "llama-server"
    link.parent.mkdir()
    link.symlink_to(release)
    assert gpu_code(link) == GpuCode(True, major)


def test_a_backend_for_vulkan_counts_and_one_for_other_makers_cards_is_not_known(release: Path) -> None:
    (release.parent / "libggml-hip.so").touch()
    assert gpu_code(release).found is None
    (release.parent / "libggml-vulkan.so").touch()
    assert gpu_code(release) == GpuCode(True, None, True)


def test_a_library_that_is_linked_to_cuda_has_it_however_a_wheel_renames_that(tmp_path: Path) -> None:
    renamed = library(tmp_path / "cuda" / "libcudart-3f3c6934.so.12.8.90")
    assert gpu_code(library(tmp_path / "wheel" / "module.so", renamed), inside=False) == GpuCode(True, 12)
    assert gpu_code(library(tmp_path / "cpu" / "module.so"), inside=False) == GpuCode(False)


def test_libraries_that_are_nowhere_near_leave_it_open(tmp_path: Path) -> None:
    far = library(tmp_path / "far" / "libllama.so.0")
    assert gpu_code(built(tmp_path / "bin" / "llama-server", far)).found is None


def test_a_program_in_one_piece_shows_its_code_inside(tmp_path: Path) -> None:
    told = 'const char *said = "ggml_cuda_init: found 1 CUDA devices";\n' + CODE
    assert gpu_code(built(tmp_path / "llama-server", code=told)) == GpuCode(True)


@pytest.mark.parametrize("content", [b"#!/bin/sh\nexec it\n", b"", b"\x7fELF\x02\x01" + b"\xff" * 80], ids=range(3))
def test_what_is_no_whole_program_leaves_it_open(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "llama-server").write_bytes(content)
    assert gpu_code(tmp_path / "llama-server") == GpuCode(None)
