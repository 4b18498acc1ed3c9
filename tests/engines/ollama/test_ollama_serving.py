"""The engine against a server: its command line, the derived model as planned, what was taken, and giving it back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.ollama.plans import plan
from support.ollama.standins import MAGISTRAL, SMALL, Scene, Server

from mscli.catalog.load import load_one
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.engines.engine import Hosted, Installation, Serving
from mscli.engines.ollama.engine import Ollama, alias_of
from mscli.errors import Code, MscliError
from mscli.paths import places, shipped_profiles
from mscli.weights.progress import Silence, WeightFiles

ALIAS = "mscli/small-q4"


@pytest.fixture
def small(tmp_path: Path) -> tuple[Profile, Model]:
    return load_one("small-q4", shipped_profiles(), tmp_path)


@pytest.fixture
def magistral(tmp_path: Path) -> tuple[Profile, Model]:
    return load_one("magistral-q4", shipped_profiles(), tmp_path)


def prepare(server: Server, profile: Profile, model: Model, alias: str = ALIAS, **changes: Any) -> Any:
    address = ("127.0.0.1", server.port)
    return Ollama().prepare(address, plan(profile, **changes), profile, model, alias, Silence())


def shown(server: Server, name: str) -> dict[str, Any]:
    """The model as the server describes it, its parameters as a mapping."""
    told = httpx.post(f"{server.url}/api/show", json={"model": name}).json()
    return {**told, "parameters": dict(line.split(maxsplit=1) for line in told["parameters"].splitlines())}


def names(server: Server) -> list[str]:
    return [model["name"] for model in httpx.get(f"{server.url}/api/tags").json()["models"]]


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    return Serving("small-q4", "127.0.0.1", 8000, ALIAS, tmp_path, tmp_path / "log", None)


def command_env(profile: Profile, model: Model, serving: Serving, **changes: Any) -> dict[str, str]:
    found = Installation("ollama", ("/usr/bin/ollama",), "0.32.15", "program", Path("/usr/bin/ollama"))
    made = Ollama().command(plan(profile, **changes), profile, model, WeightFiles(SMALL, None, 0), serving, found)
    assert made.argv == ("/usr/bin/ollama", "serve")
    return dict(made.env)


def test_the_server_is_started_with_the_plans_settings(small: tuple[Profile, Model], serving: Serving) -> None:
    env = command_env(*small, serving, devices=("GPU-1", "GPU-2"), context=32768, users=2, kv_type="q8_0")
    assert env == {
        "OLLAMA_HOST": "127.0.0.1:8000",
        "OLLAMA_MODELS": str(serving.run_dir / "tmp" / "models"),
        "HOME": str(places().ollama),
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_LOAD_TIMEOUT": "30m",
        "OLLAMA_GPU_OVERHEAD": "",
        "OLLAMA_SCHED_SPREAD": "",
        "OLLAMA_LLM_LIBRARY": "",
        "OLLAMA_CONTEXT_LENGTH": "32768",
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_NOPRUNE": "1",
        "CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2",
    }


def test_a_plan_without_gpus_hides_them_all(small: tuple[Profile, Model], serving: Serving) -> None:
    assert command_env(*small, serving)["CUDA_VISIBLE_DEVICES"] == "-1"


def test_flash_attention_is_left_to_ollama_where_the_cache_is_not_quantised(
    small: tuple[Profile, Model], serving: Serving
) -> None:
    assert "OLLAMA_FLASH_ATTENTION" not in command_env(*small, serving)


def test_the_profiles_environment_and_an_ipv6_address(small: tuple[Profile, Model], serving: Serving) -> None:
    profile = replace(small[0], env={"OLLAMA_MODELS": "/srv/models", "OLLAMA_KEEP_ALIVE": "1h"})
    env = command_env(profile, small[1], replace(serving, host="::1"))
    assert env["OLLAMA_HOST"] == "[::1]:8000"
    assert env["OLLAMA_MODELS"] == "/srv/models"
    assert env["OLLAMA_KEEP_ALIVE"] == "1h"


def test_the_program_is_found_with_its_own_version_not_the_servers(
    start: Callable[..., Server],
    scene: Scene,
    program: Path,
    user_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene.play(version="0.7.0", client_version="0.11.2")
    for name in ("PATH", "OLLAMA_STANDIN"):
        monkeypatch.setenv(name, user_env[name])
    monkeypatch.setenv("OLLAMA_HOST", start().host)
    found = Ollama().locate()
    assert (found.path, found.version) == (program, "0.11.2")


def test_the_copy_that_mscli_installed_is_found_where_path_has_none(
    program: Path, user_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(user_env["MSCLI_HOME"]) / "data" / "engines" / "ollama" / "bin" / "ollama"
    own.parent.mkdir(parents=True)
    shutil.copy(program, own)
    monkeypatch.setenv("MSCLI_HOME", user_env["MSCLI_HOME"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin" if shutil.which("ollama", path="/usr/bin:/bin") is None else "/nowhere")
    found = Ollama().locate()
    assert (found.path, found.kind) == (own, "own")


def test_without_ollama_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MscliError) as raised:
        Ollama().locate()
    assert raised.value.code == Code.ENGINE_MISSING
    assert "mscli engines install ollama" in raised.value.hint


def test_the_derived_model_carries_what_was_planned(start: Callable[..., Server], small: tuple[Profile, Model]) -> None:
    server = start()
    observed = prepare(server, *small)
    told = shown(server, ALIAS)
    assert told["parameters"] == {
        "num_ctx": "16384", "temperature": "0.15", "num_predict": "16384", "num_batch": "512", "num_gpu": "0",
    }  # fmt: skip
    assert observed.context == 16384
    assert names(server) == [SMALL, f"{ALIAS}:latest"]


def test_magistral_gets_its_sampling_its_limit_and_its_system_prompt(
    start: Callable[..., Server], magistral: tuple[Profile, Model]
) -> None:
    server = start()
    prepare(server, *magistral, alias="mscli/magistral-q4", context=40960)
    told = shown(server, "mscli/magistral-q4")
    wanted = {"num_ctx": "40960", "temperature": "0.7", "top_p": "0.95", "num_predict": "40960"}
    assert told["parameters"].items() >= wanted.items()
    assert told["system"] == magistral[1].system_prompt


def test_the_profiles_options_are_parameters_of_the_model(
    start: Callable[..., Server], small: tuple[Profile, Model]
) -> None:
    server = start()
    prepare(server, replace(small[0], options={"min_p": 0.05, "temperature": 0.3, "keep_alive": "10m"}), small[1])
    assert shown(server, ALIAS)["parameters"].items() >= {"min_p": "0.05", "temperature": "0.3"}.items()
    assert "keep_alive" not in shown(server, ALIAS)["parameters"]


@pytest.mark.parametrize(
    ("asked", "made"), [(None, "16384"), (-1, "16384"), (400_000, "16384"), (512, "512"), (0, "16384")]
)
def test_a_reply_is_never_longer_than_the_context(
    start: Callable[..., Server], small: tuple[Profile, Model], asked: int | None, made: str
) -> None:
    """Without a limit a text model goes on to ten times the context."""
    server, options = start(), {} if asked is None else {"num_predict": asked}
    prepare(server, replace(small[0], options=options), small[1])
    assert shown(server, ALIAS)["parameters"]["num_predict"] == made


def test_openai_clients_get_the_planned_context_though_they_cannot_ask_for_it(
    start: Callable[..., Server], small: tuple[Profile, Model]
) -> None:
    server = start(OLLAMA_CONTEXT_LENGTH="4096")
    prepare(server, *small)
    words = "word " * 10_000
    asked = {"model": ALIAS, "messages": [{"role": "user", "content": words}]}
    usage = httpx.post(f"{server.url}/v1/chat/completions", json=asked, timeout=30).json()["usage"]
    assert usage["prompt_tokens"] > 10_000


def test_what_the_server_says_it_took(start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model]) -> None:
    scene.play(gpu_share=0.6)
    observed = prepare(start(), *small)
    assert observed.gpu_share == pytest.approx(0.6)
    assert observed.gpu_bytes is None


def test_the_same_start_again_replaces_the_derived_model_and_pulls_nothing(
    start: Callable[..., Server], small: tuple[Profile, Model]
) -> None:
    server = start()
    prepare(server, *small)
    assert prepare(server, *small, context=8192).context == 8192
    assert server.requests.count("POST /api/pull") == 1
    assert names(server) == [SMALL, f"{ALIAS}:latest"]


def test_release_unloads_our_model_and_keeps_everything(
    start: Callable[..., Server], small: tuple[Profile, Model]
) -> None:
    server = start()
    prepare(server, *small)
    httpx.post(f"{server.url}/api/generate", json={"model": SMALL})
    Ollama().release(("127.0.0.1", server.port), ALIAS, purge=False)
    assert [model["name"] for model in httpx.get(f"{server.url}/api/ps").json()["models"]] == [SMALL]
    assert names(server) == [SMALL, f"{ALIAS}:latest"]


def test_purging_removes_our_model_and_nothing_else(start: Callable[..., Server], small: tuple[Profile, Model]) -> None:
    server = start()
    prepare(server, *small)
    Ollama().release(("127.0.0.1", server.port), ALIAS, purge=True)
    assert names(server) == [SMALL]


@pytest.mark.parametrize("purge", [False, True])
def test_releasing_what_is_not_there_is_no_fault(start: Callable[..., Server], nobody: str, purge: bool) -> None:
    Ollama().release(("127.0.0.1", start().port), ALIAS, purge)
    Ollama().release(("127.0.0.1", int(nobody.split(":")[1])), ALIAS, purge)


def test_a_refused_removal_is_named(start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model]) -> None:
    server = start()
    prepare(server, *small)
    scene.play(faults=[{"on": "delete", "status": 500, "text": "remove /srv/manifests: permission denied"}])
    with pytest.raises(MscliError, match="permission denied") as raised:
        Ollama().release(("127.0.0.1", server.port), ALIAS, purge=True)
    assert raised.value.code == Code.STOP_FAILED


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("llama runner process has terminated: cudaMalloc failed: out of memory", "oom_weights"),
        ("model requires more system memory (24.0 GiB) than is available (11.2 GiB)", "host_ram"),
        ("llama runner process has terminated: signal: killed", "host_ram"),
        ("error loading model: unknown model architecture: 'mistral3'", "unknown_arch"),
        ("unable to load model: /srv/models/blobs/sha256-1", "unknown_arch"),
        ("something went wrong", "unknown"),
    ],
)
def test_a_load_that_fails_is_named_by_the_servers_words(
    start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model], words: str, cause: str
) -> None:
    scene.play(faults=[{"on": "load", "status": 500, "text": words}])
    with pytest.raises(MscliError) as raised:
        prepare(start(), *small)
    assert (raised.value.code, raised.value.details["cause"]) == (Code.START_FAILED, cause)
    assert raised.value.details["evidence"] == [words]


def test_a_model_that_cannot_be_derived_is_named(
    start: Callable[..., Server], scene: Scene, small: tuple[Profile, Model]
) -> None:
    scene.play(faults=[{"on": "create", "status": 500, "text": "open /srv/models/blobs/x: permission denied"}])
    with pytest.raises(MscliError) as raised:
        prepare(start(), *small)
    assert raised.value.details["cause"] == "permissions"


def test_thinking_tools_and_images_reach_the_derived_model(
    start: Callable[..., Server], small: tuple[Profile, Model], magistral: tuple[Profile, Model]
) -> None:
    server = start()
    prepare(server, *magistral, alias=alias_of("magistral-q4"))
    prepare(server, *small)
    capabilities = {name: shown(server, name)["capabilities"] for name in (ALIAS, "mscli/magistral-q4")}
    assert capabilities == {
        ALIAS: ["completion", "vision", "tools"],
        "mscli/magistral-q4": ["completion", "tools", "thinking"],
    }
    assert MAGISTRAL in names(server)


def test_the_engine_is_one_whose_server_holds_many_models() -> None:
    assert isinstance(Ollama(), Hosted)


LOG = """time=2025-05-24T22:38:14Z level=INFO source=server.go:139 msg=offload layers.model=41 layers.offload=40
time=2025-05-24T22:38:16Z level=INFO source=ggml.go:351 msg="model weights" buffer=CPU size="1.7 GiB"
time=2025-05-24T22:38:16Z level=INFO source=ggml.go:351 msg="model weights" buffer=CUDA0 size="12.7 GiB"
time=2025-05-24T22:38:16Z level=INFO source=device.go:262 msg="kv cache" device=CUDA0 size="640.0 MiB"
time=2025-05-24T22:38:16Z level=INFO source=ggml.go:638 msg="compute graph" backend=CUDA0 size="1.0 GiB"
"""


def test_the_old_engines_log_is_added_up() -> None:
    seen = Ollama().observe(LOG)
    assert seen.gpu_layers == (40, 41)
    assert seen.weights_bytes == round(14.4 * 2**30)
    assert (seen.kv_bytes, seen.compute_bytes) == (640 * 2**20, 2**30)


def test_the_new_engines_log_is_added_up() -> None:
    log = """load_tensors: offloaded 41/41 layers to GPU
load_tensors:        CUDA0 model buffer size = 12942.50 MiB
llama_kv_cache:      CUDA0 KV buffer size =  5120.00 MiB
"""
    seen = Ollama().observe(log)
    assert (seen.gpu_layers, seen.kv_bytes) == ((41, 41), 5120 * 2**20)


def test_stages_of_a_start() -> None:
    lines = ['msg="server config" env="map[]"', 'msg="Listening on 127.0.0.1:8000 (version 0.32.15)"', "[GIN] 200"]
    assert [Ollama().stage(line) for line in lines] == ["starting", "starting", None]
    assert Ollama().stage('msg="starting llama-server" cmd=x') == "loading"
