"""The plan's bytes against llama.cpp's own figures, from the real engine."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGUFReader
from support.planning.planned import catalog
from support.planning.sparse_gguf import write_projector, write_q4_k_m
from support.tiny_models import TinyModels

from mscli.catalog.model import Architecture, Model, Text
from mscli.planning.memory import Configuration, llamacpp
from mscli.planning.plan import MIB

DEADLINE_S = 60.0
# What llama.cpp projects before it allocates anything: "|   - Host   |  4479 =  3593 +  640 +  246  |" (self = model +
# context + compute), one row per kind of buffer.
PROJECTED = re.compile(r"\|\s+- \w+\s*\|\s*\d+ =\s*(\d+) \+\s*(\d+) \+\s*(\d+)")
PROJECTION_ENDS = "projected to use"
IMAGE_TOWER = re.compile(r"worst-case memory usage of mmproj is ([\d.]+) MiB")
READY = "new slot, n_ctx"
MODEL, KV = re.compile(r"model buffer size =\s*([\d.]+) MiB"), re.compile(r"KV buffer size =\s*([\d.]+) MiB")


def llama_log(until: str, *flags: str) -> str:
    """The server's log up to the line that contains `until`; the server is killed there."""
    argv = [sys.executable, "-m", "mscli.engines.llamacpp.embedded", "--port", "0", "-t", "1", "-lv", "4", *flags]
    lines: list[str] = []
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    deadline = time.monotonic() + DEADLINE_S
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.append(line)
            if until in line:
                return "".join(lines)
            assert time.monotonic() < deadline, f"no '{until}' within {DEADLINE_S} s:\n{''.join(lines)}"
    finally:
        process.kill()
        process.wait(timeout=DEADLINE_S)
    raise AssertionError(f"the server ended before '{until}':\n{''.join(lines)}")


def projection(model: Path, context: int, kv_type: str, ubatch: int = 512, users: int = 1) -> tuple[int, int, int]:
    """(model, KV, compute) in MiB as llama.cpp projects them for the CPU, rounded down."""
    kv = ("-ctk", kv_type, "-ctv", kv_type)
    sizes = ("-c", str(context * users), "-np", str(users), "-ub", str(ubatch))
    log = llama_log(PROJECTION_ENDS, "-m", str(model), *sizes, *kv)
    rows = [tuple(map(int, row)) for row in PROJECTED.findall(log)]
    assert rows, f"llama.cpp printed no projection:\n{log}"
    weights, kv_mib, compute = (sum(column) for column in zip(*rows, strict=True))
    return weights, kv_mib, compute


def shaped(text: Text) -> Model:
    """A catalogue model with other sizes."""
    model = catalog().models["rehearsal"]
    return replace(model, architecture=Architecture(text, model.architecture.vision))


SIZES_24B_KV = Text(
    parameters=0,
    linear_parameters=0,
    layers=40,
    hidden=256,
    heads=8,
    kv_heads=8,
    head_dim=128,
    ffn=512,
    vocabulary=1920,
)


def test_rehearsal_buffers_equal_the_plan() -> None:
    """The shipped model, loaded for real: a user's log shows the plan's figures."""
    model = catalog().models["rehearsal"]
    variant = model.variants["q8_0"]
    packaged = Path(__file__).parents[2] / "mscli" / variant.source.files[0]
    config = Configuration(model, variant, context=4096, kv_type="q8_0")
    planned = llamacpp.MEMORY.host(config, ())
    log = llama_log(READY, "-m", str(packaged), "-c", "4096", "-np", "1", "-ctk", "q8_0", "-ctv", "q8_0")
    assert f"{planned.weights_bytes / MIB:.2f}" == MODEL.findall(log)[0]
    assert f"{planned.kv_bytes / MIB:.2f}" == KV.findall(log)[0]


@pytest.mark.parametrize(("context", "kv_type"), [(4096, "f16"), (32768, "q8_0"), (131072, "f16"), (131072, "q4_0")])
def test_wide_model_kv_equals_the_plan(tiny_model: TinyModels, context: int, kv_type: str) -> None:
    """A model with the 24B's KV size: 640 MiB at 4,096 tokens, 20 GiB at 131,072."""
    files = tiny_model("text", "kv24b", ("q8_0",))
    model = shaped(SIZES_24B_KV)
    planned = llamacpp.MEMORY.host(Configuration(model, model.variants["q8_0"], context, kv_type), ())
    _, kv_mib, _ = projection(files.gguf, context, kv_type)
    assert planned.kv_bytes // MIB == kv_mib


def test_wide_model_weights_equal_the_plan(tiny_model: TinyModels) -> None:
    """A variant states the bytes of its tensors, and that is what the engine's model buffer holds."""
    files = tiny_model("text", "kv24b", ("q8_0",))
    tensors = sum(int(tensor.n_bytes) for tensor in GGUFReader(files.gguf).tensors)
    model = shaped(SIZES_24B_KV)
    variant = replace(model.variants["q8_0"], weights_bytes=tensors, projector_bytes=0)
    planned = llamacpp.MEMORY.host(Configuration(model, variant, 4096, "f16"), ())
    weights, _, _ = projection(files.gguf, 4096, "f16")
    assert planned.weights_bytes // MIB == weights


def test_several_users_share_the_cache_as_planned(tiny_model: TinyModels) -> None:
    files = tiny_model("text", "kv24b", ("q8_0",))
    model = shaped(SIZES_24B_KV)
    planned = llamacpp.MEMORY.host(Configuration(model, model.variants["q8_0"], 4097, "f16", users=2), ())
    _, kv_mib, _ = projection(files.gguf, 4352, "f16", users=2)
    assert planned.kv_bytes // MIB == kv_mib == 2 * 4352 * 163840 // MIB


@pytest.fixture(scope="module")
def mistral_small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """Mistral Small 3.1's own sizes in Q4_K_M: a header of 4 MB and a hole of 14 GB."""
    model = catalog().models["mistral-small-3.1"]
    path = tmp_path_factory.mktemp("sparse") / "mistral-small-q4_k_m.gguf"
    return write_q4_k_m(path, model.architecture.text, model.context_limit), model


@pytest.mark.parametrize(
    ("context", "kv_type", "ubatch"),
    [(4096, "f16", 512), (32768, "q8_0", 512), (131072, "f16", 512), (32768, "f16", 2048)],
)
def test_mistral_small_equals_the_plan(
    mistral_small: tuple[Path, Model], context: int, kv_type: str, ubatch: int
) -> None:
    """Weights, KV cache and compute buffer of the real 24B's shape, each to the MiB (the engine rounds rows down)."""
    path, model = mistral_small
    config = Configuration(model, model.variants["q4_k_m"], context, kv_type)
    planned = llamacpp.MEMORY.host(config, ())
    weights, kv_mib, compute = projection(path, context, kv_type, ubatch)
    assert planned.weights_bytes / MIB == pytest.approx(weights, abs=2)  # two rows, plain and repacked tensors
    assert planned.kv_bytes // MIB == kv_mib
    assert llamacpp.compute(config, ubatch=ubatch) / MIB == pytest.approx(compute, abs=1)


def test_the_image_tower_takes_what_is_planned(tiny_model: TinyModels, tmp_path: Path) -> None:
    """Mistral Small's vision encoder: llama.cpp estimates its weights and the buffer for its warm-up of 448 x 448."""
    files = tiny_model("small31")
    vision = catalog().models["mistral-small-3.1"].architecture.vision
    assert vision is not None
    projector = write_projector(tmp_path / "mmproj.gguf", vision, hidden=256)
    log = llama_log("mmproj is", "-m", str(files.gguf), "--mmproj", str(projector), "-c", "512")
    weights = 2 * vision.tower_parameters + 2 * (4 * vision.hidden**2 + 256 * vision.hidden + 256**2)
    buffer = (448 // vision.patch) ** 2 * (3 * vision.ffn + 4 * vision.hidden) * 4
    assert float(IMAGE_TOWER.findall(log)[0]) * MIB == pytest.approx(weights + buffer, rel=0.002)
