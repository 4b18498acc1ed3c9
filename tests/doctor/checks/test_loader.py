"""A driver's library that is there and does not load: made broken for real, and what the loader says of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.doctor.doctor_site import Site
from support.machines.nvml_machines import NO_DRIVER

from mscli.doctor.checks.check import CheckContext
from mscli.doctor.checks.loader import explained
from mscli.paths import places

NVML = "libnvidia-ml.so.1"


def compiled(folder: Path, name: str, source: str, *flags: str) -> Path:
    (folder / "source.c").write_text(source)
    argv = ["cc", "-shared", "-fPIC", "-o", str(folder / name), str(folder / "source.c"), *flags]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / name


def missing_symbol(folder: Path, name: str) -> None:
    compiled(folder, name, "void nvmlInternalOfAnotherRelease(void); void x(void) { nvmlInternalOfAnotherRelease(); }")


def missing_library(folder: Path, name: str) -> None:
    other = compiled(folder, "libnvidia-other.so", "void other(void) {}", "-Wl,-soname,libnvidia-other.so.1")
    compiled(folder, name, "void other(void); void x(void) { other(); }", str(other))
    other.unlink()


def newer_glibc(folder: Path, name: str) -> None:
    (folder / "map").write_text("GLIBC_2.999 { global: of_tomorrow; };")
    flags = ("-nostdlib", "-Wl,-soname,libc.so.6", f"-Wl,--version-script={folder}/map")
    libc = compiled(folder, "stand-in.so", "void of_tomorrow(void) {}", *flags)
    compiled(folder, name, "void of_tomorrow(void); void x(void) { of_tomorrow(); }", "-nostdlib", str(libc))
    libc.unlink()


def patched(place: int, value: bytes) -> Callable[[Path, str], None]:
    def make(folder: Path, name: str) -> None:
        path = compiled(folder, name, "void x(void) {}")
        content = path.read_bytes()
        path.write_bytes(content[:place] + value + content[place + len(value) :])

    return make


def of_text(folder: Path, name: str) -> None:
    (folder / name).write_text("<html>404: there is no such driver</html>\n" * 20)


def link_to_nothing(folder: Path, name: str) -> None:
    (folder / name).symlink_to("libnvidia-ml.so.570.124.06")


BROKEN: dict[str, tuple[Callable[[Path, str], None], str, str]] = {
    "missing symbol": (missing_symbol, "nvml_mismatch", "undefined symbol: nvmlInternalOfAnotherRelease"),
    "missing library": (missing_library, "nvml_not_found", "libnvidia-other.so.1"),
    "newer glibc": (newer_glibc, "nvml_not_found", "GLIBC_2.999"),
    "32 bits": (patched(4, b"\x01"), "nvml_not_found", "32-bit"),
    "another architecture": (patched(18, b"\xb7\x00"), "nvml_not_found", "aarch64"),
    "no library at all": (of_text, "nvml_not_found", "invalid ELF header"),
    "broken link": (link_to_nothing, "nvml_not_found", "broken link to libnvidia-ml.so.570.124.06"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_nvml_that_is_there_and_does_not_load_is_told_from_a_missing_one(
    site: Site, tmp_path: Path, what: str
) -> None:
    make, code, words = BROKEN[what]
    folder = tmp_path / "libraries"
    folder.mkdir()
    make(folder, NVML)
    found = site.look(NO_DRIVER, "driver", env={"LD_LIBRARY_PATH": str(folder)}).one("driver.nvml")
    assert (found["status"], found["code"]) == ("fail", code)
    assert found["seen"].startswith(f"{NVML} does not load: ")
    assert words in found["seen"]


def test_a_libcuda_that_does_not_load(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "libraries"
    folder.mkdir()
    missing_symbol(folder, "libcuda.so.1")
    found = site.look("rtx4090", "cuda", env={"LD_LIBRARY_PATH": str(folder)}, cuda=False).one("cuda.library")
    assert (found["status"], found["code"]) == ("fail", "nvml_mismatch")
    assert "undefined symbol" in found["seen"]


def test_a_library_in_a_folder_that_the_loader_does_not_search(site: Site) -> None:
    folder = site.root / "usr/local/nvidia/lib64"
    folder.mkdir(parents=True)
    compiled(folder, NVML, "void x(void) {}")
    found = site.look(NO_DRIVER, "driver").one("driver.nvml")
    assert found["code"] == "nvml_not_found"
    assert found["command"].startswith(f"echo {folder} | sudo tee ")


SAID = {
    f"{NVML}: cannot open shared object file: No such file or directory": "missing",
    f"{NVML}: cannot open shared object file: Permission denied": "permission",
    f"/data/{NVML}: failed to map segment from shared object: Operation not permitted": "permission",
    f"/lib/{NVML}: wrong ELF class: ELFCLASS32": "architecture",
    f"/lib/{NVML}: file too short": "damaged",
    f"/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /lib/{NVML})": "glibc",
    f"/lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /lib/{NVML})": "symbol",
    f"/lib/{NVML}: symbol cuXyz version libcuda.so.1 not defined in file libcuda.so.1": "symbol",
    "libnvidia-gpucomp.so.570: cannot open shared object file: No such file or directory": "dependency",
    # musl's loader
    f"Error loading shared library {NVML}: No such file or directory": "missing",
    f"Error loading shared library ld-linux.so.2: No such file or directory (needed by /lib/{NVML})": "dependency",
    f"Error relocating /lib/{NVML}: __isoc23_strtol: symbol not found": "symbol",
    f"Error loading shared library {NVML}: Exec format error": "architecture",
    f"/lib/{NVML}: cannot allocate memory in static TLS block": "other",
}


@pytest.mark.parametrize("words", SAID)
def test_what_the_loader_says(tmp_path: Path, words: str) -> None:
    ctx = CheckContext(places({"MSCLI_HOME": str(tmp_path)}), env={}, root=tmp_path)
    assert explained(ctx, NVML, words).kind == SAID[words]
