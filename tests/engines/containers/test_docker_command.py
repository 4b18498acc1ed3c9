"""The command line of `docker run` and `podman run`: GPUs, port, mounts, key, and vLLM's own flags behind the image."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mscli.catalog.load import load_one
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile, on_engine
from mscli.engines.containers.run import folders, tag_version
from mscli.engines.engine import Command, Installation, Serving
from mscli.engines.vllm.docker import VllmDocker
from mscli.errors import MscliError
from mscli.instances import process
from mscli.paths import MARK, shipped_profiles
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles

PLAN = Plan(
    profile="small-bf16", engine="vllm-docker", model="mistral-small-3.1", variant="bf16", verdict="safe",
    reasons=(), context=65536, kv_type="f16", tensor_parallel=2, images=10, users=1, gpus=(0, 1),
    devices=("GPU-aaaa", "GPU-bbbb"), memory=(), layers_on_gpu=41, host_bytes=0,
    settings={"gpu_memory_utilization": 0.912, "max_num_batched_tokens": 2048, "max_num_seqs": 256},
)  # fmt: skip
DOCKER = Installation("vllm-docker", ("/usr/bin/docker",), None, "docker", Path("/usr/bin/docker"))
PODMAN = Installation("vllm-docker", ("/usr/bin/podman",), None, "podman", Path("/usr/bin/podman"))


def contained() -> tuple[Profile, Model]:
    known, model = load_one("small-bf16", shipped_profiles(), None)
    return on_engine(known, "vllm-docker"), model


def command(
    found: Installation = DOCKER, host: str = "127.0.0.1", weights: str = "org/repo", key: Path | None = None,
    profile: Mapping[str, Any] | None = None, **more: Any,
) -> Command:  # fmt: skip
    known, model = contained()
    serving = Serving("it", host, 8123, model.name, Path("/run/it"), Path("/run/it/log"), key)
    files = WeightFiles(weights, None, 0)
    return VllmDocker().command(
        replace(PLAN, **more), replace(known, **(profile or {})), model, files, serving, found
    )  # fmt: skip


def values(argv: tuple[str, ...], flag: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == flag]


def test_docker_is_given_gpus_by_uuid_as_one_field_of_csv() -> None:
    argv = command().argv
    (given,) = values(argv, "--gpus")
    assert next(csv.reader([given])) == ["device=GPU-aaaa,GPU-bbbb"]
    assert """--gpus '"device=GPU-aaaa,GPU-bbbb"'""" in shlex.join(argv)


def test_podman_is_given_gpus_by_their_cdi_names_and_shown_a_home_that_selinux_guards() -> None:
    argv = command(PODMAN).argv
    assert values(argv, "--device") == ["nvidia.com/gpu=GPU-aaaa", "nvidia.com/gpu=GPU-bbbb"]
    assert "--gpus" not in argv
    assert values(argv, "--security-opt") == ["label=disable"]


def test_without_gpus_none_are_asked_for_and_the_cache_takes_what_was_planned() -> None:
    argv = command(devices=(), gpus=(), tensor_parallel=1, settings={}).argv
    assert "--gpus" not in argv
    assert "VLLM_CPU_KVCACHE_SPACE=10" in values(argv, "--env")  # 65,536 tokens x 163,840 bytes


@pytest.mark.parametrize(
    ("host", "published"),
    [
        ("127.0.0.1", "127.0.0.1:8123:8000"),
        ("localhost", "127.0.0.1:8123:8000"),
        ("0.0.0.0", "0.0.0.0:8123:8000"),
        ("::1", "[::1]:8123:8000"),
    ],
)
def test_the_port_is_published_where_it_was_asked_for_and_vllm_listens_to_the_container(
    host: str, published: str
) -> None:
    argv = command(host=host).argv
    assert values(argv, "--publish") == [published]
    assert (values(argv, "--host"), values(argv, "--port")) == (["0.0.0.0"], ["8000"])


def test_a_name_is_no_address_to_publish_on() -> None:
    with pytest.raises(MscliError, match="gpu-box"):
        command(host="gpu-box")


def test_the_key_and_the_mark_are_handed_on_by_name_alone() -> None:
    made = command(key=Path("/run/it/key"))
    assert values(made.argv, "--env")[-2:] == [MARK, "VLLM_API_KEY"]
    assert made.secrets == {"VLLM_API_KEY": Path("/run/it/key")}
    assert MARK == process.MARK == "MSCLI_INSTANCE"


def test_behind_the_image_stand_the_same_flags_as_on_native_vllm() -> None:
    argv = command().argv
    image = argv.index("docker.io/vllm/vllm-openai:v0.32.0")
    assert argv[image - 2 : image] == ("--entrypoint", "vllm")
    assert argv[image + 1 : image + 3] == ("serve", "org/repo")
    rest = argv[image:]
    for flag, wanted in {
        "--tokenizer-mode": "mistral", "--config-format": "mistral", "--load-format": "mistral",
        "--tool-call-parser": "mistral", "--tensor-parallel-size": "2", "--max-model-len": "65536",
        "--gpu-memory-utilization": "0.912", "--limit-mm-per-prompt": '{"image": 10}',
    }.items():  # fmt: skip
        assert values(rest, flag) == [wanted]
    assert "--enable-auto-tool-choice" in rest


def test_nothing_is_more_than_it_must_be() -> None:
    argv = command().argv
    assert not {"--privileged", "--restart", "--network", "--user", "--pid"} & set(argv)
    assert (values(argv, "--pull"), values(argv, "--shm-size"), "--rm" in argv) == (["never"], ["8g"], True)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.32.0", "0.32.0"),
        ("docker.io/vllm/vllm-openai:v0.32.0", "0.32.0"),
        ("vllm/vllm-openai:v0.32.0@sha256:" + "0" * 64, "0.32.0"),
        ("vllm/vllm-openai:v0.10.1.1", "0.10.1.1"),
        ("registry:5000/vllm:0.9.2-cu126", "0.9.2-cu126"),
        ("registry:5000/vllm", None),
        ("vllm/vllm-openai:latest", None),
        ("vllm/vllm-openai:nightly-0a1b2c", None),
        ("vllm/vllm-openai@sha256:" + "0" * 64, None),
    ],
)
def test_the_version_is_the_tags(image: str, version: str | None) -> None:
    assert tag_version(image) == version


def test_flags_are_spelt_as_the_image_wants_them() -> None:
    argv = command(profile={"image": "vllm/vllm-openai:v0.8.4"}).argv
    assert values(argv, "--limit-mm-per-prompt") == ["image=10"]
    assert "--disable-log-requests" in argv


def test_an_image_that_is_too_old_is_refused() -> None:
    with pytest.raises(MscliError) as refused:
        command(profile={"image": "vllm/vllm-openai:v0.7.3"})
    assert refused.value.details["cause"] == "version_backend_old"


def test_instances_of_one_name_in_two_homes_have_containers_of_two_names() -> None:
    one, other = command().contained, command()
    elsewhere = Serving("it", "127.0.0.1", 8123, "m", Path("/other/it"), Path("/other/it/log"), None)
    known, model = contained()
    two = VllmDocker().command(PLAN, known, model, WeightFiles("org/repo", None, 0), elsewhere, DOCKER).contained
    assert one is not None
    assert two is not None
    assert one == other.contained
    assert one.name != two.name
    assert one.name.startswith("mscli-it-")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository in the hub's cache, as the Hugging Face libraries leave it."""
    folder = tmp_path / "hub" / "models--org--name"
    (folder / "blobs").mkdir(parents=True)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for name in ("params.json", "consolidated.safetensors"):
        (folder / "blobs" / f"hash-of-{name}").touch()
        (snapshot / name).symlink_to(f"../../blobs/hash-of-{name}")
    return folder


def test_of_the_hubs_cache_the_repository_alone_is_mounted(repository: Path) -> None:
    snapshot = next((repository / "snapshots").iterdir())
    argv = command(weights=str(snapshot)).argv
    assert values(argv, "--mount") == [f"type=bind,src={repository},dst={repository},readonly"]
    assert argv[argv.index("serve") + 1] == str(snapshot)


def test_a_cache_behind_a_link_is_mounted_where_it_really_is(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "home").symlink_to(tmp_path / "hub")
    seen = tmp_path / "home" / repository.name / "snapshots" / ("0" * 40)
    argv = command(weights=str(seen)).argv
    assert values(argv, "--mount") == [f"type=bind,src={repository},dst={repository},readonly"]
    assert argv[argv.index("serve") + 1] == str(seen.resolve())


def test_blobs_on_another_disk_are_mounted_as_well(repository: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk" / "blobs"
    elsewhere.parent.mkdir()
    (repository / "blobs").rename(elsewhere)
    (repository / "blobs").symlink_to(elsewhere)
    assert folders(next((repository / "snapshots").iterdir())) == (elsewhere, repository)


def test_a_folder_of_links_is_mounted_with_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "model.safetensors").touch()
    (tmp_path / "brought").mkdir()
    (tmp_path / "brought" / "model.safetensors").symlink_to(tmp_path / "kept" / "model.safetensors")
    (tmp_path / "brought" / "config.json").touch()
    assert folders(tmp_path / "brought") == (tmp_path / "brought", tmp_path / "kept")


def test_a_comma_in_a_folders_name_stays_in_its_field(tmp_path: Path) -> None:
    folder = tmp_path / 'models, "new"'
    folder.mkdir()
    (mount,) = values(command(weights=str(folder)).argv, "--mount")
    assert next(csv.reader([mount])) == ["type=bind", f"src={folder}", f"dst={folder}", "readonly"]
