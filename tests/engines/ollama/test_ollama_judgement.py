"""What is said about a running server: too old, another version, another user's, other settings; and why on the CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from support.ollama.plans import plan
from support.ollama.standins import SMALL, STANDIN, Scene, Server

from mscli.catalog.load import load_one
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.engines.engine import Adopted
from mscli.engines.ollama.engine import Ollama
from mscli.engines.ollama.observed import cpu_reason, settings_note
from mscli.engines.ollama.server import Address, look
from mscli.errors import Code, MscliError
from mscli.inventory.inventory import Device, Holder
from mscli.paths import shipped_profiles

GIB = 2**30


@pytest.fixture
def small(tmp_path: Path) -> tuple[Profile, Model]:
    return load_one("small-q4", shipped_profiles(), tmp_path)


@pytest.fixture
def as_user(user_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process with the environment of the test's user."""
    for name in ("CUDA_VISIBLE_DEVICES", *(name for name in os.environ if name.startswith("OLLAMA_"))):
        monkeypatch.delenv(name, raising=False)
    for name in ("PATH", "HOME", "MSCLI_HOME", "OLLAMA_STANDIN"):
        monkeypatch.setenv(name, user_env[name])
    return monkeypatch


def checked(server: Server, small: tuple[Profile, Model], monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything that is said about the server once clients look there."""
    monkeypatch.setenv("OLLAMA_HOST", server.host)
    adopted = Ollama().running()
    assert adopted is not None
    return "\n".join(Ollama().check(adopted, *small))


def test_a_server_as_it_should_be_is_used_without_a_word(
    start: Callable[..., Server], small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    assert checked(start(OLLAMA_KEEP_ALIVE="-1"), small, as_user) == ""


def test_a_server_too_old_for_the_model_is_refused_with_both_versions(
    start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    scene.play(version="0.6.2", client_version="0.6.2")
    with pytest.raises(MscliError) as raised:
        checked(start(), small, as_user)
    assert raised.value.code == Code.ENGINE_UNSUPPORTED
    assert raised.value.details == {"cause": "version_backend_old", "version": "0.6.2", "needed": "0.6.5"}
    assert "Install a newer Ollama" in raised.value.hint


def test_an_old_server_with_a_newer_program_on_disk_is_to_be_restarted_not_upgraded(
    start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    scene.play(version="0.6.2", client_version="0.32.15")
    with pytest.raises(MscliError) as raised:
        checked(start(), small, as_user)
    assert raised.value.hint.startswith("Restart it: 0.32.15 is installed already")


def test_a_version_that_says_nothing_is_given_the_benefit_of_the_doubt(
    start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    scene.play(version="0.0.0", client_version="0.0.0")
    assert checked(start(OLLAMA_KEEP_ALIVE="-1"), small, as_user) == ""


def test_a_server_that_reserves_memory_for_images_is_warned_about(
    start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    scene.play(version="0.9.6", client_version="0.9.6")
    assert "Ollama 0.9.6 reserves 8.8 GiB of GPU memory for images" in checked(start(), small, as_user)


@pytest.mark.parametrize("lacks", [["tags.capabilities"], []])
def test_a_server_with_models_tells_by_their_list_whether_it_reserves_memory_for_images(
    start: Callable[..., Server],
    scene: Scene,
    small: tuple[Profile, Model],
    as_user: pytest.MonkeyPatch,
    lacks: list[str],
) -> None:
    """Its number counts for nothing then: one that was built from source has none."""
    server = start()
    httpx.post(f"{server.url}/api/pull", json={"model": SMALL}, timeout=30).raise_for_status()
    for version in ("0.0.0", "0.9.6", "0.32.15"):
        scene.play(version=version, client_version=version, lacks=lacks)
        said = checked(server, small, as_user)
        assert (f"Ollama {version} reserves 8.8 GiB" in said) is bool(lacks)


def test_a_server_that_cannot_make_a_model_from_another_is_refused_whatever_its_number(
    start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    """Before 0.5.5 it read a Modelfile, and says so."""
    scene.play(version="0.0.0", client_version="0.0.0", lacks=["from"])
    with pytest.raises(MscliError, match="it cannot make a model from another") as raised:
        checked(start(), small, as_user)
    assert raised.value.details["cause"] == "version_backend_old"
    assert "Install a newer Ollama" in raised.value.hint


def test_a_server_older_than_the_program_on_disk_is_warned_about(
    start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    scene.play(version="0.31.0", client_version="0.32.15")
    said = checked(start(), small, as_user)
    assert "the running server is 0.31.0" in said
    assert "Restart it: 0.32.15 is installed already" in said


def test_a_program_on_disk_older_than_the_server_is_no_reason_to_touch_the_server(
    start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    scene.play(version="0.32.15", client_version="0.31.0")
    said = checked(start(OLLAMA_KEEP_ALIVE="-1"), small, as_user)
    assert said.endswith("is 0.31.0: update that program")
    assert "estart" not in said


def test_the_copy_that_mscli_installed_says_nothing_of_somebody_elses_server(
    start: Callable[..., Server],
    scene: Scene,
    small: tuple[Profile, Model],
    as_user: pytest.MonkeyPatch,
    program: Path,
    user_env: dict[str, str],
) -> None:
    scene.play(version="0.31.0", client_version="0.32.15")
    server = start(OLLAMA_KEEP_ALIVE="-1")
    own = Path(user_env["MSCLI_HOME"]) / "data" / "engines" / "ollama" / "bin" / "ollama"
    own.parent.mkdir(parents=True)
    program.rename(own)
    assert checked(server, small, as_user) == ""


def test_settings_of_the_shell_that_the_server_does_not_see_are_named(
    start: Callable[..., Server], small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    server = start(OLLAMA_KV_CACHE_TYPE="f16")
    as_user.setenv("OLLAMA_CONTEXT_LENGTH", "32768")
    as_user.setenv("OLLAMA_KV_CACHE_TYPE", "q8_0")
    said = checked(server, small, as_user)
    assert "OLLAMA_CONTEXT_LENGTH=32768 is set in this shell; the server does not see it, it has the default" in said
    assert "OLLAMA_KV_CACHE_TYPE=q8_0 is set in this shell; the server does not see it, it has f16" in said


def test_a_second_installation_is_named(
    start: Callable[..., Server],
    small: tuple[Profile, Model],
    as_user: pytest.MonkeyPatch,
    program: Path,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other" / "ollama"
    other.parent.mkdir()
    shutil.copy(Path(sys.executable).resolve(), other)
    script = program.read_text()
    program.write_text(f'#!/bin/sh\nexport PYTHONHOME={sys.base_prefix}\nexec "{other}" "{STANDIN}" serve\n')
    server = start(OLLAMA_KEEP_ALIVE="-1")
    program.write_text(script)
    said = checked(server, small, as_user)
    assert said == f"two installations of Ollama: the server runs {other}, this shell finds {program}"


def test_a_second_models_folder_is_named(
    start: Callable[..., Server], small: tuple[Profile, Model], as_user: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = start(OLLAMA_MODELS=str(tmp_path / "service-models"))
    own = Path(os.environ["HOME"]) / ".ollama" / "models"
    (own / "manifests" / "registry.ollama.ai").mkdir(parents=True)
    said = checked(server, small, as_user)
    assert f"two models folders: the server's is {tmp_path / 'service-models'}" in said
    assert str(own) in said


def test_a_service_at_another_address_than_clients_look_at_is_named(
    start: Callable[..., Server], small: tuple[Profile, Model], as_user: pytest.MonkeyPatch, nobody: str, program: Path
) -> None:
    server = start()
    told = f"LoadState=loaded\nActiveState=active\nMainPID={server.process.pid}\nUser=ollama\n"
    (program.parent / "shown").write_text(f"{told}Environment=OLLAMA_HOST=0.0.0.0:{server.port}\n")
    (program.parent / "systemctl").write_text(f'#!/bin/sh\nexec cat "{program.parent}/shown"\n')
    as_user.setenv("OLLAMA_HOST", nobody)
    adopted = Ollama().running()
    assert adopted is not None
    assert adopted.owner == "systemd service ollama, user ollama"
    said = "\n".join(Ollama().check(adopted, *small))
    assert f"export OLLAMA_HOST=127.0.0.1:{server.port}" in said


def test_a_container_whose_port_is_passed_on_is_called_one(
    start: Callable[..., Server], program: Path, as_user: pytest.MonkeyPatch
) -> None:
    # A Python under another name needs to be told where its library is.
    home = f"#!/bin/bash\nexport PYTHONHOME={sys.base_prefix}\n"
    program.write_text(program.read_text().replace("#!/bin/sh\nexec ", f"{home}exec -a /usr/bin/docker-proxy "))
    server = start()
    seen = look(Address("http", "127.0.0.1", server.port), "0.32.15")
    assert seen.owner == f"a container (docker-proxy, PID {server.process.pid})"
    assert seen.models is None


def test_a_server_elsewhere_is_said_to_be_elsewhere(small: tuple[Profile, Model], as_user: pytest.MonkeyPatch) -> None:
    said = Ollama().check(Adopted("192.0.2.7", 11434, "0.32.15", ""), *small)
    assert "the plan is made for the GPUs of this machine" in said[0]


def test_a_cache_type_that_the_server_has_not_is_noted(
    start: Callable[..., Server], small: tuple[Profile, Model], as_user: pytest.MonkeyPatch
) -> None:
    server = look(Address("http", "127.0.0.1", start(OLLAMA_NUM_PARALLEL="4").port), "0.32.15")
    note = settings_note(server, plan(small[0], kv_type="q8_0"))
    assert note is not None
    assert "OLLAMA_KV_CACHE_TYPE is f16 (planned: q8_0) and OLLAMA_NUM_PARALLEL is 4 (planned: 1)" in note
    assert settings_note(server, plan(small[0], users=4)) is None


def device(*holders: Holder) -> Device:
    return Device(0, "GPU-1", "RTX 4090", 24 * GIB, 23 * GIB, "8.9", False, holders)


def test_the_cpu_is_put_down_to_the_image_graph_of_old_versions(small: tuple[Profile, Model]) -> None:
    said = cpu_reason(plan(small[0], devices=("GPU-1",)), small[1], True, 0.7, (device(),))
    assert "this version of Ollama reserves 8.8 GiB of GPU memory for images" in said


def test_the_cpu_is_put_down_to_others_on_the_gpu(small: tuple[Profile, Model]) -> None:
    other = Holder(4711, "eve", "python train.py", None, 9 * GIB)
    said = cpu_reason(plan(small[0], devices=("GPU-1",)), small[1], False, 0.7, (device(other),))
    assert "PID 4711 (python train.py) with 9.0 GiB on GPU 0" in said


def test_no_gpu_at_all_is_put_down_to_what_the_server_sees(small: tuple[Profile, Model]) -> None:
    said = cpu_reason(plan(small[0], devices=("GPU-1",)), small[1], False, 0.0, (device(),))
    assert "the server uses no GPU" in said
    assert "--gpus all" in said


def test_a_text_model_is_not_put_down_to_images(tmp_path: Path) -> None:
    profile, model = load_one("magistral-q4", shipped_profiles(), tmp_path)
    said = cpu_reason(plan(profile, devices=("GPU-1",)), model, True, 0.7, (device(),))
    assert "images" not in said


def test_a_program_that_hangs_has_no_version(program: Path, as_user: pytest.MonkeyPatch) -> None:
    program.write_text("#!/bin/sh\necho nothing\n")
    assert Ollama().locate().version is None
    assert subprocess.run([program]).returncode == 0


def test_the_warnings_of_an_adopted_server_need_no_program(
    start: Callable[..., Server], small: tuple[Profile, Model], as_user: pytest.MonkeyPatch, program: Path
) -> None:
    server = start(OLLAMA_KEEP_ALIVE="-1")
    program.unlink()
    assert checked(server, small, as_user) == ""


def test_a_profile_of_another_model_has_no_least_version(
    start: Callable[..., Server], scene: Scene, tmp_path: Path, as_user: pytest.MonkeyPatch
) -> None:
    scene.play(version="0.6.2", client_version="0.6.2")
    profile, model = load_one("magistral-q4", shipped_profiles(), tmp_path)
    assert checked(start(OLLAMA_KEEP_ALIVE="-1"), (replace(profile), model), as_user) == ""
