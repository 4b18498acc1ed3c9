"""Plans and places as the lifecycle would hand them to an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mscli.catalog.load import load_one
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.engines.engine import Serving
from mscli.paths import shipped_profiles
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles

WEIGHTS = WeightFiles("/models/small31", None, 0)
ON_CPU = Plan(
    profile="small-4bit",
    engine="transformers",
    model="mistral-small-3.1",
    variant="bnb-4bit",
    verdict="safe",
    reasons=(),
    context=8192,
    kv_type="f16",
    tensor_parallel=1,
    images=0,
    users=1,
    gpus=(),
    devices=(),
    memory=(),
    layers_on_gpu=0,
    host_bytes=0,
)
ON_ONE_GPU = replace(ON_CPU, gpus=(0,), devices=("GPU-a",), layers_on_gpu=41)
ON_TWO_GPUS = replace(ON_CPU, gpus=(0, 1), devices=("GPU-a", "GPU-b"), layers_on_gpu=41)


def shipped(name: str) -> tuple[Profile, Model]:
    """A profile that comes with mscli, with its model."""
    return load_one(name, shipped_profiles(), None)


def serving(folder: Path, key: Path | None = None) -> Serving:
    """Where the instance serves."""
    return Serving("test", "127.0.0.1", 1234, "mistral-small-3.1", folder, folder / "log", key)


def after(argv: tuple[str, ...], flag: str) -> str:
    """The value of a flag."""
    return argv[argv.index(flag) + 1]


def environment(folder: Path, **versions: str) -> Path:
    """A Python environment as far as files tell: an interpreter and the metadata of what is installed."""
    packages = folder / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text("#!/bin/sh\n")
    (folder / "bin" / "python").chmod(0o755)
    for name, version in versions.items():
        (packages / f"{name}-{version}.dist-info").mkdir()
    return folder


def program(path: Path, text: str) -> Path:
    """An executable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
