"""`mscli up` on a machine that has a driver and no engine: it installs the engine, and starts."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from support.engines.releases import Releases, zstd_packed
from support.ollama.standins import SMALL, STANDIN, Scene
from support.run_mscli import Mscli, Ran
from support.terminal import on_a_terminal

from mscli.engines.ollama.installation import VERSION

Machine = Callable[..., dict[str, str]]
NAME = "ollama-linux-amd64.tar.zst"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """What Ollama's registry holds."""
    registry = {SMALL: {"layers": [3_000_000, 1_000], "capabilities": ["completion", "vision", "tools"]}}
    made = Scene(tmp_path / "scene.json", {"registry": registry})
    made.play()
    return made


@pytest.fixture
def releases(serve: Callable[[dict[str, bytes]], Releases]) -> Releases:
    """A mirror of Ollama's releases whose archive holds the stand-in."""
    script = f'#!/bin/sh\nexec "{sys.executable}" -S "{STANDIN}" "$@"\n'.encode()
    plain = BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        entry = tarfile.TarInfo("bin/ollama")
        entry.size, entry.mode = len(script), 0o755
        tar.addfile(entry, BytesIO(script))
    packed = zstd_packed(plain.getvalue())
    row = f"{hashlib.sha256(packed).hexdigest()}  ./{NAME}\n".encode()
    return serve({f"/v{VERSION}/sha256sum.txt": row, f"/v{VERSION}/{NAME}": packed})


@pytest.fixture
def bare(machine: Machine, scene: Scene, releases: Releases, nobody: str, tmp_path: Path) -> dict[str, str]:
    """An RTX 4090 with a driver and a shell, and no engine."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to(str(shutil.which("sh")))
    (tools / "systemctl").write_text("#!/bin/sh\necho LoadState=not-found\n")
    (tools / "systemctl").chmod(0o755)
    return {
        **machine("rtx4090"), "PATH": str(tools), "OLLAMA_STANDIN": str(scene.path), "OLLAMA_HOST": nobody,
        "MSCLI_OLLAMA_RELEASES": releases.url,
    }  # fmt: skip


def engines(home: Path) -> list[str]:
    folder = home / "data" / "engines"
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []


def answered(env: dict[str, str], answer: str, *args: str) -> tuple[int, str]:
    """One call of mscli on a terminal of its own, with `answer` typed; its exit code and all that was shown."""
    with on_a_terminal(*args, env=env, width=200) as terminal:
        terminal.press(answer)
        return terminal.ended(), terminal.raw


def test_up_yes_installs_the_engine_fetches_the_weights_and_ends_ready(
    mscli: Mscli, bare: dict[str, str], home: Path
) -> None:
    ran = mscli("up", "small-q4", "-y", "--json", env=bare)
    assert ran.code == 0, ran.out
    assert ran.data["instance"]["state"] == "ready"
    assert ran.data["plan"]["engine_state"] == "ready"
    assert engines(home) == ["ollama"]
    assert "stand-in for Ollama" in mscli("chat", "hello", env=bare).out


def test_a_variable_says_yes_for_scripts_and_the_best_fit_is_chosen(mscli: Mscli, bare: dict[str, str]) -> None:
    ran = mscli("up", "--json", env={**bare, "MSCLI_YES": "1"})
    assert (ran.code, ran.data["plan"]["profile"], ran.data["instance"]["state"]) == (0, "small-q4", "ready"), ran.out


def test_without_a_terminal_and_without_yes_it_says_what_to_type_and_fetches_nothing(
    mscli: Mscli, bare: dict[str, str], home: Path, releases: Releases
) -> None:
    ran = mscli("up", "small-q4", "--ctx", "16384", "--json", env=bare)
    assert (ran.code, ran.error["code"]) == (1, "confirmation_needed")
    assert "mscli up small-q4 --ctx 16384 --json -y" in ran.error["hint"]
    assert ran.error["details"]["weights_bytes"] > 10**10
    assert (releases.asked, engines(home)) == ([], [])


def test_on_a_terminal_it_asks_once_for_all_and_no_fetches_nothing(
    mscli: Mscli, user_env: dict[str, str], bare: dict[str, str], home: Path, releases: Releases
) -> None:
    code, shown = answered({**user_env, **bare}, "n\n", "up", "small-q4")
    assert code == 130, shown
    assert f"Ollama {VERSION}" in shown
    assert "GiB, into" in shown
    assert "free" in shown
    assert shown.count("Continue?") == 1
    assert (releases.asked, engines(home)) == ([], [])
    code, shown = answered({**user_env, **bare}, "y\n", "up", "small-q4")
    assert code == 0, shown
    assert shown.count("Continue?") == 1
    assert engines(home) == ["ollama"]


@pytest.mark.parametrize("option", ["--no-install", "--offline"])
def test_what_may_not_be_installed_is_missing_as_before(
    option: str, mscli: Mscli, bare: dict[str, str], releases: Releases
) -> None:
    ran = mscli("up", "small-q4", "-y", option, "--json", env=bare)
    assert (ran.code, ran.error["code"]) == (1, "engine_missing")
    assert "Ollama was not found" in ran.error["message"]
    assert releases.asked == []


def test_a_damaged_archive_leaves_no_engine_behind(
    mscli: Mscli, bare: dict[str, str], home: Path, releases: Releases
) -> None:
    releases.files[f"/v{VERSION}/{NAME}"] += b"damaged"
    ran = mscli("up", "small-q4", "-y", "--json", env=bare)
    assert (ran.code, ran.error["code"]) == (1, "download_failed")
    assert engines(home) == []
    assert not (home / "data" / "ollama").exists(), "weights were fetched for an engine that is not here"


def test_the_dry_run_and_the_verdict_say_what_would_be_installed(mscli: Mscli, bare: dict[str, str]) -> None:
    ran = mscli("up", "--dry-run", "--json", env=bare)
    assert ran.data["plan"]["engine_state"] == "installable"
    assert any(f"installs Ollama {VERSION} first" in note for note in ran.data["notes"])
    rows = {row["name"]: row for row in mscli("profiles", "--json", env=bare).data["profiles"]}
    assert (rows["small-q4"]["verdict"], rows["small-q4"]["engine_state"]) == ("safe", "installable")
    assert "fits, needs engine" in mscli("profiles", env=bare).out
    assert "fits, needs Ollama" in mscli("plan", "small-q4", env=bare).out


def test_a_way_that_cannot_be_had_here_is_not_chosen_and_every_command_says_the_same(
    mscli: Mscli, bare: dict[str, str]
) -> None:
    """A llama-server that is first on PATH and does not run: mscli does not go round it."""
    broken = Path(bare["PATH"]) / "llama-server"
    broken.write_text("#!/bin/sh\necho 'libcudart.so.12: cannot open shared object file' >&2; exit 127\n")
    broken.chmod(0o755)
    rows = {row["name"]: row for row in mscli("profiles", "--json", env=bare).data["profiles"]}
    assert (rows["small-gguf-q4"]["engine_state"], rows["small-q4"]["engine_state"]) == ("missing", "installable")
    chosen = mscli("up", "--dry-run", "--json", env=bare)
    assert chosen.data["plan"]["engine"] != "llama.cpp"
    named = mscli("up", "small-gguf-q4", "-y", "--json", env=bare)
    assert (named.code, named.error["code"]) == (1, "engine_missing")
    visit = mscli("doctor", "small-gguf-q4", "--only", "profile", "--json", env=bare)
    found = next(each for each in visit.data["findings"] if each["id"] == "profile.engine")
    assert (visit.code, found["status"]) == (5, "fail")
    assert (found["seen"], found["remedy"]) == (named.error["message"], named.error["hint"])


def test_a_build_for_the_cpu_is_no_engine_for_a_gpu_and_up_and_doctor_say_the_same(
    mscli: Mscli, bare: dict[str, str]
) -> None:
    """The wheel that runs the tests has no GPU code."""
    named = mscli("up", "small-gguf-q4", "--no-install", "--json", env=bare)
    assert (named.code, named.error["code"]) == (1, "engine_missing"), named.out
    assert "llama.cpp with GPU code was not found" in named.error["message"]
    rows = {row["name"]: row for row in mscli("profiles", "--json", env=bare).data["profiles"]}
    assert rows["small-gguf-q4"]["engine_state"] in ("missing", "installable")
    assert rows["small-cpu"]["engine_state"] == "ready"
    visit = mscli("doctor", "small-gguf-q4", "--only", "profile", "--json", env=bare)
    found = next(each for each in visit.data["findings"] if each["id"] == "profile.engine")
    assert named.error["message"] in found["seen"]
    assert (found["status"], visit.code) == (
        ("fail", 5) if rows["small-gguf-q4"]["engine_state"] == "missing" else ("warn", 0)
    )


def test_installed_only_chooses_among_engines_that_are_here(mscli: Mscli, bare: dict[str, str]) -> None:
    def chosen(*args: str) -> Ran:
        return mscli("up", "--installed-only", "--dry-run", "--json", *args, env=bare)

    here = {row["name"] for row in mscli("engines", "--json", env=bare).data["engines"] if row["where"]}
    anything = chosen()
    assert anything.code == 4 or anything.data["plan"]["engine"] in here
    refused = chosen("--engine", "ollama")
    assert (refused.code, refused.error["code"]) == (4, "no_fit")


def test_under_a_driver_of_cuda_12_an_h100_still_gets_vllm(
    mscli: Mscli, machine: Machine, bare: dict[str, str]
) -> None:
    """Rented machines have such drivers, and nobody there can update them. Which vLLM: test_vllm_install.py."""
    env = {**bare, **machine("h100-80", lambda told: told.update(driver="550.54.15", cuda="12.4"))}
    plan = mscli("up", "--dry-run", "--json", env=env).data["plan"]
    assert (plan["profile"], plan["engine"], plan["engine_state"]) == ("small-bf16", "vllm", "installable")


def test_under_a_driver_that_is_too_old_for_every_engine_the_way_on_is_to_update_it(
    mscli: Mscli, machine: Machine, bare: dict[str, str]
) -> None:
    env = {**bare, **machine("driver-470")}
    for named in ((), ("small-q4",)):
        refused = mscli("up", *named, "--dry-run", "--json", env=env)
        assert (refused.code, refused.error["code"]) == (4, "no_fit")
        assert "driver 550 or newer" in refused.error["message"]
        assert refused.error["hint"].startswith("Update the NVIDIA driver (470.256.02 is installed).")


def test_a_plan_does_not_say_to_install_what_mscli_cannot_install_here(
    mscli: Mscli, machine: Machine, bare: dict[str, str]
) -> None:
    notes = " ".join(mscli("plan", "small-isq", env={**bare, **machine("driver-470")}).err.split())
    assert "mscli cannot install it here" in notes
    assert "mscli engines install mistral.rs" not in notes
