"""Installing vLLM with a uv that notes what it is asked: a real program on PATH in place of gigabytes."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mscli.catalog.gpus import load_gpus
from mscli.engines.installed import run_logged
from mscli.engines.packages import addresses
from mscli.engines.vllm.installation import PYTHONS, install, offer, version_for
from mscli.errors import Code, MscliError
from mscli.paths import shipped_profiles
from mscli.planning.described_machine import machine as described
from mscli.weights.progress import Silence

UV = """\
#!/bin/sh
echo "$@" >> {asked}
if [ "$1" = venv ]; then mkdir -p "$2/bin" "$2/lib/python3.12/site-packages"; touch "$2/bin/python"; exit 0; fi
case "$*" in *vllm==0.99*) echo "No solution found: there is no version of vllm==0.99"; exit 1;; esac
mkdir -p {place}/lib/python3.12/site-packages/vllm-0.32.0.dist-info {place}/bin
printf '#!/bin/sh\\n# {place}/bin/python\\necho vllm "$@" >> {asked}\\n' > {place}/bin/vllm
chmod +x {place}/bin/vllm
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What uv was asked to do."""
    log, place, programs = tmp_path / "asked", tmp_path / "engines" / "vllm", tmp_path / "bin"
    programs.mkdir()
    uv = programs / "uv"
    uv.write_text(UV.format(asked=log, place=place))
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return log


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="torch of CUDA 12 is for x86-64 alone on PyPI")
def test_the_version_comes_with_its_pin_and_the_torch_of_the_package_index(asked: Path, tmp_path: Path) -> None:
    found = install(Silence(), version="0.32.0", cuda="13.0", folder=tmp_path / "engines" / "vllm")
    assert (found.version, found.kind) == ("0.32.0", "own")
    made, wanted, kernels = asked.read_text().splitlines()
    assert made.endswith("--python >=3.11,<3.14")
    assert wanted.endswith("vllm==0.32.0 mistral_common==1.12.0")
    assert kernels == "vllm download-kernels"


def test_a_version_that_gets_on_with_everything_has_no_pin(asked: Path, tmp_path: Path) -> None:
    install(Silence(), version="0.19.1", cuda="13.0", folder=tmp_path / "engines" / "vllm")
    assert asked.read_text().splitlines()[-1].endswith("vllm==0.19.1")
    assert "download-kernels" not in asked.read_text(), "0.19 knows no such command"


def test_an_old_version_comes_with_every_pin_that_it_needs(asked: Path, tmp_path: Path) -> None:
    install(Silence(), version="0.9.2", cuda="13.0", folder=tmp_path / "engines" / "vllm")
    assert "vllm==0.9.2 transformers<4.54 numpy<2.3 --torch-backend" in asked.read_text()


def test_what_uv_says_is_passed_on_and_kept(asked: Path, tmp_path: Path) -> None:
    with pytest.raises(MscliError, match="No solution found") as failed:
        install(Silence(), version="0.99", cuda="13.0", folder=tmp_path / "engines" / "vllm")
    assert failed.value.code is Code.DOWNLOAD_FAILED
    assert "No solution found" in (tmp_path / "engines" / "vllm.log").read_text()


@pytest.mark.parametrize(
    ("said", "host", "setting"),
    [
        pytest.param(
            "error: Request failed after 3 retries in 11.6s\n  cause: Failed to fetch: https://mirror.test/simple/vllm/\n"
            "  cause: client error (Connect)\n  cause: tcp connect error\n  cause: Connection refused (os error 111)",
            "mirror.test", "UV_DEFAULT_INDEX", id="uv: the index",
        ),
        pytest.param(
            "error: Request failed after 3 retries in 7.9s\n"
            "  cause: Failed to fetch: https://download.pytorch.org/whl/cu130/torchvision/\n  cause: dns error",
            "download.pytorch.org", "mscli engines install vllm", id="uv: PyTorch's own index",
        ),
        pytest.param(
            "error: Request failed after 3 retries in 9.9s\n  Caused by: Failed to fetch: `https://pypi.org/simple/vllm/`",
            "pypi.org", "UV_DEFAULT_INDEX", id="uv, as older ones say it",
        ),
        pytest.param(
            "  cause: Failed to download `https://github.com/astral-sh/python-build-standalone/releases/download/20261110/"
            "cpython-3.12.16.tar.gz`\n  cause: dns error",
            "github.com", "UV_PYTHON_INSTALL_MIRROR", id="uv: a Python",
        ),
        pytest.param(
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/uv/\n"
            "ERROR: Could not find a version that satisfies the requirement uv (from versions: none)",
            "pip.test", "PIP_INDEX_URL", id="pip, which does not name its host",
        ),
    ],
)  # fmt: skip
def test_a_host_that_cannot_be_reached_is_named_with_the_setting_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, host: str, setting: str
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@pip.test/simple")
    (tmp_path / "said").write_text(said)
    with pytest.raises(MscliError) as failed:
        run_logged(["/bin/sh", "-c", f"cat {tmp_path / 'said'}; exit 2"], tmp_path / "log")

    assert f"cannot fetch from {host} (" in failed.value.message
    assert failed.value.details["host"] == host
    assert setting in failed.value.hint
    assert "secret" not in f"{failed.value.message} {failed.value.hint}"


@pytest.mark.parametrize(
    ("env", "hosts"),
    [
        ({}, ["https://pypi.org/simple", "https://files.pythonhosted.org/simple"]),
        ({"UV_DEFAULT_INDEX": "company=https://mirror.test/simple/"}, ["https://mirror.test/simple"]),
        ({"UV_INDEX_URL": "https://mirror.test/simple"}, ["https://mirror.test/simple"]),
    ],
)
@pytest.mark.usefixtures("asked")
def test_what_must_be_reached_for_it_is_the_index_that_uv_is_given(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], hosts: list[str]
) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert list(addresses(PYTHONS)) == hosts


def test_without_a_driver_nothing_is_fetched(asked: Path, tmp_path: Path) -> None:
    with pytest.raises(MscliError, match="no NVIDIA driver") as refused:
        install(Silence(), folder=tmp_path / "engines" / "vllm")
    assert refused.value.details["cause"] == "no_driver"
    assert not asked.exists()


@pytest.mark.parametrize("version", ["0.32.0", "0.20.0"])
def test_a_driver_that_is_too_old_for_its_packages_is_named_before_anything_is_fetched(
    version: str, asked: Path, tmp_path: Path
) -> None:
    """Its libraries need libcudart.so.13, whichever torch is installed beside them."""
    with pytest.raises(
        MscliError, match=rf"vLLM {version} is built for CUDA 13, and the driver offers CUDA 12.8"
    ) as old:
        install(Silence(), version=version, cuda="12.8", folder=tmp_path / "engines" / "vllm")
    assert (old.value.code, old.value.details["cause"]) == (Code.ENGINE_UNSUPPORTED, "driver_too_old")
    assert "580" in (old.value.hint or "")
    assert not asked.exists()


@pytest.mark.parametrize(("cuda", "version"), [("12.2", "0.19.1"), ("12.9", "0.19.1"), ("13.0", "0.32.0")])
def test_without_a_version_the_newest_that_the_driver_runs_is_installed(
    cuda: str, version: str, asked: Path, tmp_path: Path
) -> None:
    install(Silence(), cuda=cuda, folder=tmp_path / "engines" / "vllm")
    assert f"vllm=={version}" in asked.read_text().split()


@pytest.mark.parametrize(("cuda", "version"), [("12.4", "0.19.1"), ("13.0", "0.32.0")])
def test_what_a_start_would_install_is_named_by_its_version(cuda: str, version: str) -> None:
    h100 = replace(described("H100", load_gpus(shipped_profiles())), cuda=cuda)
    assert offer("gpu", h100).what == f"vLLM {version}"


def test_a_driver_or_a_system_that_is_too_old_for_every_version_is_refused() -> None:
    for cuda, system, cause in (
        ("11.8", (2, 39), "driver_too_old"),
        ("12.4", (2, 28), "build"),
        (None, None, "no_driver"),
    ):
        with pytest.raises(MscliError) as refused:
            version_for(cuda, system)
        assert (refused.value.code, refused.value.details["cause"]) == (Code.ENGINE_UNSUPPORTED, cause)
        assert refused.value.hint


def test_without_uv_it_is_brought_from_the_index_whatever_python_runs_mscli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is a folder with one wheel, whose uv notes what it is asked."""
    asked, place = tmp_path / "asked", tmp_path / "engines" / "vllm"
    wheel = tmp_path / "index" / "uv-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        script = zipfile.ZipInfo("uv-1.0.data/scripts/uv")
        script.external_attr = 0o100755 << 16
        archive.writestr(script, UV.format(asked=asked, place=place))
        archive.writestr("uv-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 1.0\n")
        archive.writestr("uv-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("uv-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    found = install(Silence(), version="0.32.0", cuda="13.0", folder=place)
    assert (found.version, found.kind) == ("0.32.0", "own")
    assert asked.read_text().splitlines()[0] == f"venv {place} --allow-existing --python >=3.11,<3.14"
    assert (tmp_path / "engines" / "uv" / "bin" / "uv").is_file()
