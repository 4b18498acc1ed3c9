"""The command lines of its three kinds, and the folder that the model is given in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mscli.catalog.load import load_one
from mscli.engines.engine import Command, Installation, Serving
from mscli.engines.mistralrs.engine import FOLDER, MistralRs
from mscli.engines.serving.model_folder import corrected, limited, linked
from mscli.engines.templates import chat_template
from mscli.errors import Code, MscliError
from mscli.paths import shipped_profiles
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles

ENGINE = MistralRs()
CURRENT = Installation("mistral.rs", ("/bin/mistralrs", "serve"), "0.8.1", "program", Path("/bin/mistralrs"))
OLDER = Installation("mistral.rs", ("/bin/mistralrs-server",), "0.5.0", "older program", Path("/bin/mistralrs-server"))
WHEEL = Installation(
    "mistral.rs", ("/env/bin/python", "/server.py"), "0.9.5", "wheel", Path("/env/bin/python"), {"mistralrs": "0.9.5"}
)
PLAN = Plan(
    profile="small-isq",
    engine="mistral.rs",
    model="mistral-small-3.1",
    variant="isq-q4k",
    verdict="safe",
    reasons=(),
    context=8192,
    kv_type="f16",
    tensor_parallel=1,
    images=1,
    users=2,
    gpus=(0,),
    devices=("GPU-a",),
    memory=(),
    layers_on_gpu=41,
    host_bytes=0,
    settings={"isq": "q4k", "paged_attention_context": 16384},
)
ON_CPU = replace(PLAN, gpus=(), devices=(), layers_on_gpu=0)


def command(found: Installation, folder: Path, plan: Plan = PLAN, profile: str = "small-isq") -> Command:
    shipped, model = load_one(profile, shipped_profiles(), None)
    where = Serving("test", "127.0.0.1", 1234, model.name, folder, folder / "log", None)
    return ENGINE.command(plan, shipped, model, WeightFiles("/hub/snapshot", None, 0), where, found)


def own_words(made: Command) -> list[str]:
    """The engine's own command line, behind what prepares the folder."""
    assert made.argv[:4] == (sys.executable, str(FOLDER), "/hub/snapshot", "mistral-small-3.1")
    assert made.argv[4] == str(PLAN.context)
    return list(made.argv[5:])


def test_the_current_program(tmp_path: Path) -> None:
    template = str(tmp_path / "chat-template.jinja")

    assert own_words(command(CURRENT, tmp_path)) == [
        *("/bin/mistralrs", "serve", "-m", "mistral-small-3.1", "--host", "127.0.0.1", "--port", "1234"),
        *("--token-source", "none", "--max-seqs", "2", "--isq", "q4k", "--jinja-explicit", template),
        *("--max-num-images", "1", "--pa-context-len", "16384"),
    ]


def test_an_engine_that_is_not_here_yet_is_shown_as_the_current_program(tmp_path: Path) -> None:
    absent = Installation("mistral.rs", ("mistralrs",), None, "absent", Path("mistralrs"))

    assert own_words(command(absent, tmp_path))[:4] == ["mistralrs", "serve", "-m", "mistral-small-3.1"]


def test_the_older_program_as_its_guide_has_it(tmp_path: Path) -> None:
    template = str(tmp_path / "chat-template.jinja")

    assert own_words(command(OLDER, tmp_path)) == [
        *("/bin/mistralrs-server", "--serve-ip", "127.0.0.1", "--port", "1234", "--token-source", "none"),
        *("--max-seqs", "2", "--isq", "q4k", "--jinja-explicit", template, "--pa-ctxt-len", "16384"),
        *("vision-plain", "-m", "mistral-small-3.1", "-a", "mistral3"),
    ]


def test_the_older_program_with_a_model_that_sees_nothing(tmp_path: Path) -> None:
    plan = replace(PLAN, model="magistral-small-2506", images=0)
    words = command(OLDER, tmp_path, plan, "magistral-isq").argv

    assert words[-5:] == ("plain", "-m", "magistral-small-2506", "-a", "mistral")


def test_the_wheel_behind_our_server(tmp_path: Path) -> None:
    words = own_words(command(WHEEL, tmp_path, ON_CPU))

    assert words[:2] == ["/env/bin/python", "/server.py"]
    assert "--kv-tokens" not in words
    assert [words[words.index(flag) + 1] for flag in ("--context", "--users", "--isq", "--temperature")] == [
        "8192",
        "2",
        "q4k",
        "0.15",
    ]


@pytest.mark.parametrize("found", [CURRENT, OLDER], ids=["current", "older"])
def test_on_the_cpu_it_is_told_so(found: Installation, tmp_path: Path) -> None:
    made = command(found, tmp_path, ON_CPU)

    assert "--cpu" in made.argv
    assert not any("--pa-" in word for word in made.argv)
    assert made.env["CUDA_VISIBLE_DEVICES"] == ""


def test_the_flag_for_the_kv_cache_is_left_out_where_it_is_not_known(tmp_path: Path) -> None:
    assert "--pa-context-len" not in command(replace(CURRENT, version="0.9.5"), tmp_path).argv


@pytest.mark.parametrize("found", [CURRENT, OLDER], ids=["current", "older"])
def test_every_program_listens_on_this_machine_alone(found: Installation, tmp_path: Path) -> None:
    words = command(found, tmp_path, ON_CPU).argv

    assert "127.0.0.1" in words
    assert "0.0.0.0" not in words


def test_the_template_for_tools_is_written_by_mscli(tmp_path: Path) -> None:
    made = command(CURRENT, tmp_path)

    assert made.files == {tmp_path / "chat-template.jinja": chat_template("v7")}


def test_layers_are_mapped_as_planned(tmp_path: Path) -> None:
    plan = replace(PLAN, settings={**PLAN.settings, "device_layers": "0:30;1:10"})

    assert command(CURRENT, tmp_path, plan).argv[-2:] == ("--device-layers", "0:30;1:10")


@pytest.mark.parametrize(
    ("found", "seen"),
    [
        pytest.param(replace(OLDER, version="0.4.0"), r"0\.4\.0", id="a server without Mistral 3"),
        pytest.param(replace(WHEEL, version="0.8.1"), r"0\.8\.1", id="a wheel with other settings"),
        pytest.param(WHEEL, "no GPU code", id="GPUs planned, a wheel for the CPU"),
    ],
)
def test_what_cannot_serve_the_plan_is_refused(found: Installation, seen: str, tmp_path: Path) -> None:
    with pytest.raises(MscliError, match=seen) as refused:
        command(found, tmp_path)

    assert refused.value.code is Code.ENGINE_UNSUPPORTED


def test_the_folder_holds_links_without_what_is_misread(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("config.json", "model.safetensors", "params.json", "tekken.json", "consolidated.safetensors"):
        (source / name).write_text("{}")
    linked(source, tmp_path / "twin", 4096)
    linked(source, tmp_path / "twin", 4096)  # again, as after a restart

    assert sorted(path.name for path in (tmp_path / "twin").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tekken.json",
    ]
    assert (tmp_path / "twin" / "model.safetensors").resolve() == source / "model.safetensors"


def test_the_weights_folder_itself_is_left_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    text = json.dumps({"patch_size": {"height": 14, "width": 14}})
    (source / "preprocessor_config.json").write_text(text)
    linked(source, tmp_path / "twin", 4096)

    assert (source / "preprocessor_config.json").read_text() == text
    assert json.loads((tmp_path / "twin" / "preprocessor_config.json").read_text())["patch_size"] == 14


def test_a_preprocessor_that_is_right_already_keeps_its_values() -> None:
    right = {"patch_size": 14, "default_to_square": True, "image_mean": [0.5, 0.5, 0.5]}

    assert corrected(right) == right


def test_the_program_runs_beside_the_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"seen": 1}')
    where = tmp_path / "tmp"
    where.mkdir()
    argv = [sys.executable, str(FOLDER), str(source), "twin", "4096", "cat", "twin/config.json"]
    done = subprocess.run(argv, env={**os.environ, "TMPDIR": str(where)}, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == {"seen": 1}


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        pytest.param({"max_position_embeddings": 131072}, {"max_position_embeddings": 4096}, id="longer than planned"),
        pytest.param({"max_position_embeddings": 2048}, {"max_position_embeddings": 2048}, id="shorter"),
        pytest.param(
            {"a": 1, "text_config": {"max_position_embeddings": 131072, "b": 2}, "vision_config": {}},
            {"a": 1, "text_config": {"max_position_embeddings": 4096, "b": 2}, "vision_config": {}},
            id="beside a vision encoder",
        ),
    ],
)
def test_the_config_that_it_reads_allows_the_planned_context(config: dict[str, Any], seen: dict[str, Any]) -> None:
    assert limited(config, 4096) == seen


@pytest.mark.parametrize(
    ("log", "layers"),
    [
        pytest.param("INFO Layers 0-39: cuda[0] (24 GB)", (41, 41), id="one GPU"),
        pytest.param("Layers 0-19: cuda[0] (24 GB)\nLayers 20-39: cuda[1] (24 GB)", (41, 41), id="two"),
        pytest.param("Layers 0-29: cuda[0] (24 GB)\nLayers 30-39: cpu (64 GB)", (30, 41), id="a part in host memory"),
        pytest.param("\x1b[2mx\x1b[0m Layers 0-1: \x1b[32mcpu\x1b[0m (24 GB)", (0, 3), id="coloured"),
        pytest.param("nothing", None, id="not told"),
    ],
)
def test_its_device_map_is_observed(log: str, layers: tuple[int, int] | None) -> None:
    assert ENGINE.observe(log).gpu_layers == layers
