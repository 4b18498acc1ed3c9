"""The main job on Ollama, whole: a described card, the real mscli, and the stand-in in the place of Ollama."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.faults.user import until
from support.ollama.standins import SMALL, Scene, Server
from support.run_mscli import Mscli, Ran

from mscli.instances.process import alive, identify

ALIAS = "mscli/small-q4"
Machine = Callable[..., dict[str, str]]


def used_mib(machine: dict[str, str]) -> int:
    """Memory in use on the first GPU of the described machine, as NVML tells it."""
    return int(json.loads(Path(machine["MSCLI_TEST_MACHINE"]).read_text())["gpus"][0]["memory_mib"]["used"])


def up(mscli: Mscli, env: dict[str, str], *args: str) -> Ran:
    return mscli("up", "small-q4", "--yes", "--json", *args, env=env)


def models(url: str, path: str = "tags") -> list[str]:
    return [model["name"] for model in httpx.get(f"{url}/api/{path}").json()["models"]]


def served(env: dict[str, str]) -> Path:
    """Where the stand-in notes what it fetched into mscli's own store."""
    return Path(env["MSCLI_HOME"]) / "data" / "ollama" / "models" / "served"


def base(instance: dict[str, Any]) -> str:
    return str(instance["base_url"]).removesuffix("/v1")


@pytest.mark.parametrize("card", ["rtx3090", "rtx4090"])
def test_up_pulls_derives_loads_proves_and_down_gives_everything_back(
    mscli: Mscli, machine: Machine, card: str
) -> None:
    env = machine(card)
    before = used_mib(env)
    done = up(mscli, env)
    instance, plan = done.data["instance"], done.data["plan"]
    assert (instance["state"], instance["model"]) == ("ready", ALIAS)
    server = identify(instance["pid"])
    assert server
    observed = done.data["observed"]
    assert observed["context"] == plan["context"] == instance["context"]
    assert observed["gpu_share"] == 1.0
    assert next(iter(observed["gpu_bytes"].values())) == pytest.approx(20e9, abs=2**20)
    assert used_mib(env) > before
    url = base(instance)
    assert models(url, "ps") == [f"{ALIAS}:latest"]
    told = httpx.post(f"{url}/api/show", json={"model": ALIAS}).json()["parameters"].split()
    assert told[told.index("num_ctx") + 1] == str(plan["context"])

    chat = mscli("chat", "hello", env=env)
    assert "a stand-in for Ollama" in chat.out

    down = mscli("down", "--json", env=env)
    assert down.code == 0
    assert used_mib(env) == before
    assert not alive(server), "the port may be somebody else's by now"


def test_without_the_gateway_it_says_what_clients_must_send(mscli: Mscli, machine: Machine) -> None:
    env, told = machine("rtx4090"), "clients must send temperature=0.15"
    done = up(mscli, env, "--plain")
    assert any(told in warning for warning in done.data["warnings"])
    assert told in mscli("env", env=env).err
    assert any(told in note for note in mscli("check", "--json", env=env).data["notes"])


def test_a_server_that_runs_already_is_adopted_when_asked_for_and_left_as_it_was(
    mscli: Mscli, machine: Machine, start: Callable[..., Server]
) -> None:
    env = machine("rtx4090")
    server = start(**env)
    httpx.post(f"{server.url}/api/pull", json={"model": "magistral:24b-small-2506-q4_K_M"}, timeout=30)
    env["OLLAMA_HOST"] = server.host
    instance = up(mscli, env, "--adopt").data["instance"]
    assert instance["pid"] is None
    assert instance["owner"].startswith(f"PID {server.process.pid}")
    assert base(instance) == server.url

    assert mscli("down", env=env).code == 0
    assert server.process.poll() is None
    assert models(server.url, "ps") == []
    assert models(server.url) == ["magistral:24b-small-2506-q4_K_M", SMALL, f"{ALIAS}:latest"]

    assert mscli("restart", "small-q4", env=env).code == 0
    assert models(server.url, "ps") == [f"{ALIAS}:latest"]
    assert mscli("down", "--purge", env=env).code == 0
    assert models(server.url) == ["magistral:24b-small-2506-q4_K_M", SMALL]
    asked = {request for request in server.requests if not request.startswith(("GET", "HEAD"))}
    changing = {"POST /api/pull", "POST /api/create", "POST /api/generate", "DELETE /api/delete"}
    assert asked - {"POST /api/show", "POST /v1/chat/completions"} == changing  # the one: the first question of `up`
    assert server.process.poll() is None


def test_a_model_that_falls_to_the_cpu_fails_the_start_with_the_reason(
    mscli: Mscli, machine: Machine, scene: Scene, start: Callable[..., Server]
) -> None:
    scene.play(version="0.9.6", client_version="0.9.6", gpu_share=0.7, lacks=["tags.capabilities"])
    env = machine("a6000")
    before = used_mib(env)
    failed = up(mscli, env)
    assert failed.error["details"]["cause"] == "cpu_fallback"
    assert "70%" in failed.error["message"]
    assert "reserves 8.8 GiB of GPU memory for images" in failed.error["message"]
    assert used_mib(env) == before

    wanted = up(mscli, env, "--no-require-gpu")
    assert wanted.data["observed"]["gpu_share"] == pytest.approx(0.7)
    assert any("only 70% of the model is on the GPU" in warning for warning in wanted.data["warnings"])

    assert mscli("down", env=env).code == 0
    scene.play(gpu_share=0.0)
    wanted = up(mscli, env, "--no-require-gpu")
    assert any("the model is not on the GPU" in warning for warning in wanted.data["warnings"])


def test_another_context_while_it_runs_is_a_matter_of_replacing_not_of_memory(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx4090")
    assert up(mscli, env).code == 0
    refused = up(mscli, env, "--ctx", "16000")
    assert refused.error["code"] == "instance_exists"
    assert "--replace" in refused.error["hint"]
    assert up(mscli, env, "--ctx", "16000", "--replace").data["instance"]["context"] == 16000


def test_what_the_server_answered_is_kept_with_the_instance(mscli: Mscli, machine: Machine, scene: Scene) -> None:
    words = 'tensor "output.weight" offset+size (1098272) exceeds file size (1000000)'
    scene.play(faults=[{"on": "load", "status": 500, "text": words, "always": True}])
    env = machine("rtx4090")
    failed = up(mscli, env)
    assert failed.error["details"]["cause"] == "corrupt_weights"
    assert f"the server answered: {words}" in mscli("logs", "small-q4", env=env).out
    told = mscli("doctor", "--log", "small-q4", "--json", env=env).data
    assert told["causes"][0]["code"] == "corrupt_weights"


def test_healing_leaves_alone_what_an_adopted_server_decides(
    mscli: Mscli, machine: Machine, scene: Scene, start: Callable[..., Server]
) -> None:
    words = "llama-server process no longer running: exit status 1 cudaMalloc failed: out of memory"
    scene.play(faults=[{"on": "load", "status": 500, "text": words, "always": True}])
    env = {**machine("rtx4090"), "OLLAMA_HOST": start(**machine("rtx4090"), OLLAMA_NUM_PARALLEL="4").host}
    failed = up(mscli, env, "--adopt")
    healed = " ".join(heal["change"] for heal in failed.error["details"].get("healed", []))
    assert "KV" not in healed
    assert "user" not in healed
    assert "OLLAMA_NUM_PARALLEL is 4" in failed.error["message"]
    assert "4 times the context" in failed.error["message"]


def test_half_an_answer_is_shown_and_exits_with_1(mscli: Mscli, machine: Machine, scene: Scene) -> None:
    env = machine("rtx4090")
    assert up(mscli, env).code == 0
    scene.play(faults=[{"on": "chat", "after": 4}])
    broken = mscli("chat", "hello", env=env)
    assert (broken.code, broken.out.strip()) == (1, "Hello! This reply comes")
    assert "was cut off" in broken.err
    assert "the process that holds the model died" in " ".join(broken.err.split())
    assert "mscli logs small-q4" in broken.err

    assert "Hello" in mscli("chat", "hello", env=env).out, "the next request loads it again"
    words = "CUDA error: out of memory\n  current device: 0, in function alloc at ggml-cuda.cu:503"
    scene.play(faults=[{"on": "chat", "after": 4, "log": words}])
    broken = mscli("chat", "hello", "--json", env=env)
    assert broken.code == 1
    assert "Cause: " in broken.error["message"]
    assert "memory" in broken.error["message"].partition("Cause: ")[2]


def stored_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_weights_of_the_users_own_store_are_borrowed_and_stay_as_they_are(
    mscli: Mscli, machine: Machine, start: Callable[..., Server], user_env: dict[str, str]
) -> None:
    env = {**user_env, **machine("rtx4090")}
    server = start(**machine("rtx4090"))
    httpx.post(f"{server.url}/api/pull", json={"model": SMALL}, timeout=30)
    before = stored_bytes(server.models)
    instance = up(mscli, env).data["instance"]
    assert models(base(instance)) == [SMALL, f"{ALIAS}:latest"]
    assert "a stand-in for Ollama" in mscli("chat", "hello", env=env).out
    assert mscli("down", "--purge", env=env).code == 0
    assert stored_bytes(server.models) == before
    assert not served(env).exists(), "nothing was downloaded"


def test_two_instances_of_one_model_run_side_by_side_each_with_its_context(
    mscli: Mscli, machine: Machine, user_env: dict[str, str]
) -> None:
    env = {**user_env, **machine("h200")}
    contexts = {"one": 8192, "two": 16384}
    urls = {}
    for name, context in contexts.items():
        urls[name] = base(up(mscli, env, "--name", name, "--ctx", str(context)).data["instance"])
    rows = served(env).read_text().splitlines()
    assert len(rows) == len(set(rows)), "fetched once for both"
    loaded = {name: httpx.get(f"{url}/api/ps").json()["models"] for name, url in urls.items()}
    assert {name: [model["context_length"] for model in held] for name, held in loaded.items()} == {
        name: [context] for name, context in contexts.items()
    }
    assert mscli("down", "one", env=env).code == 0
    assert models(urls["two"], "ps") == ["mscli/two:latest"]


def test_a_store_that_may_not_be_read_is_named_before_anything_is_fetched(
    mscli: Mscli, machine: Machine, program: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "service" / ".ollama" / "models"
    closed.mkdir(parents=True)
    program.with_name("systemctl").write_text(
        f"#!/bin/sh\necho LoadState=loaded\necho User=ollama\necho Environment=OLLAMA_MODELS={closed}\n"
    )
    closed.parent.chmod(0)
    try:
        if os.access(closed, os.R_OK):
            pytest.skip("root may read every folder")
        done = mscli("up", "small-q4", "--yes", env=machine("rtx4090"))
        assert f"sudo chmod -R o+rX {closed}" in done.err
    finally:
        closed.parent.chmod(0o755)


@pytest.mark.parametrize("flag", ["--port=8500", "--host=127.0.0.2", "--users=3", "--no-wait", "--supervise"])
def test_what_a_running_server_decides_itself_is_refused_in_words(
    mscli: Mscli, machine: Machine, start: Callable[..., Server], flag: str
) -> None:
    env = {**machine("rtx4090"), "OLLAMA_HOST": start().host}
    refused = up(mscli, env, "--adopt", flag)
    assert refused.error["code"] == "usage"
    assert flag.partition("=")[0] in refused.error["message"]
    assert up(mscli, env, "--adopt", flag, "--dry-run").error == refused.error


def test_a_dead_server_on_another_machine_is_named_and_not_replaced(mscli: Mscli, machine: Machine) -> None:
    refused = up(mscli, {**machine("rtx4090"), "OLLAMA_HOST": "192.0.2.1:11434"})
    assert refused.error["code"] == "engine_missing"
    assert "192.0.2.1" in refused.error["message"]
    assert "unset OLLAMA_HOST" in refused.error["hint"]


def test_an_adopted_server_on_ipv6_gives_the_model_back(
    mscli: Mscli, machine: Machine, start: Callable[..., Server]
) -> None:
    server = start(**machine("rtx4090"), OLLAMA_HOST="[::1]:0")
    env = {**machine("rtx4090"), "OLLAMA_HOST": f"[::1]:{server.port}"}
    instance = up(mscli, env, "--adopt").data["instance"]
    assert (instance["state"], instance["base_url"]) == ("ready", f"http://[::1]:{server.port}/v1")
    assert "a stand-in for Ollama" in mscli("chat", "hello", env=env).out
    assert mscli("down", env=env).code == 0
    assert httpx.get(f"http://[::1]:{server.port}/api/ps").json() == {"models": []}


def test_an_old_server_is_used_by_what_it_answers(
    mscli: Mscli, machine: Machine, scene: Scene, start: Callable[..., Server]
) -> None:
    """Before 0.11 no context is told of a loaded model, before 0.6.4 no abilities; 0.5.5 has hardly more than this."""
    scene.play(lacks=["context_length", "capabilities", "modelfile", "thinking", "expires_at", "/api/status"])
    server = start(**machine("rtx4090"))
    env = {**machine("rtx4090"), "OLLAMA_HOST": server.host}
    done = up(mscli, env, "--adopt")
    assert (done.data["instance"]["state"], done.data["observed"]["context"]) == ("ready", None)
    assert "a stand-in for Ollama" in mscli("chat", "hello", env=env).out
    httpx.post(f"{server.url}/api/generate", json={"model": ALIAS, "keep_alive": 0}, timeout=30)
    assert mscli("status", "--json", env=env).data["instances"][0]["state"] == "unloaded"
    assert up(mscli, env, "--adopt").data["instance"]["state"] == "ready"
    assert mscli("down", "--purge", env=env).code == 0
    assert (models(server.url, "ps"), models(server.url)) == ([], [SMALL])


def test_adopting_where_nothing_runs_says_so(mscli: Mscli, machine: Machine) -> None:
    refused = up(mscli, machine("rtx4090"), "--adopt")
    assert refused.error["code"] == "engine_missing"
    assert "--adopt" in refused.error["message"]


def test_a_server_too_old_for_the_model_is_refused_before_anything_is_pulled(
    mscli: Mscli, machine: Machine, scene: Scene, start: Callable[..., Server]
) -> None:
    scene.play(version="0.6.2", client_version="0.32.15")
    server = start()
    failed = up(mscli, {**machine("a6000"), "OLLAMA_HOST": server.host}, "--adopt")
    assert failed.error["details"]["cause"] == "version_backend_old"
    assert "Restart it: 0.32.15 is installed already" in failed.error["hint"]
    assert "POST /api/pull" not in server.requests
    small = up(mscli, {**machine("t4"), "OLLAMA_HOST": server.host}, "--adopt")
    assert small.error["details"]["cause"] == "version_backend_old", "not that it does not fit"


def test_a_pull_that_fails_leaves_no_server_behind(mscli: Mscli, machine: Machine, scene: Scene) -> None:
    words = "pull model manifest: 412: \n\nThe model you are attempting to pull requires a newer version of Ollama."
    scene.play(faults=[{"on": "pull", "kind": "error", "text": words, "always": True}])
    env = machine("rtx4090")
    failed = up(mscli, env)
    assert failed.error["details"]["cause"] == "version_backend_old"
    assert mscli("status", env=env).code == 3


def test_a_models_folder_that_may_not_be_written_is_named(
    mscli: Mscli, machine: Machine, tmp_path: Path, program: Path
) -> None:
    program.write_text("#!/bin/sh\necho 'Error: mkdir /srv/models: permission denied' >&2\nexit 1\n")
    failed = up(mscli, machine("rtx4090"))
    assert failed.error["details"]["cause"] == "permissions"
    assert "/srv/models" in failed.error["message"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_up_that_is_killed_while_it_pulls_loses_no_byte(
    mscli: Mscli, machine: Machine, scene: Scene, user_env: dict[str, str], number: int
) -> None:
    scene.play(bytes_per_s=1_500_000)
    env = {**user_env, **machine("rtx4090")}
    killed = subprocess.Popen(
        [sys.executable, "-m", "mscli", "up", "small-q4", "--yes", "--events"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    noted = served(env)
    assert killed.stdout is not None
    for _ in killed.stdout:
        if noted.exists() and noted.read_text().count("\n") > 20:
            break
    os.kill(killed.pid, number)
    killed.wait(20)
    scene.play(bytes_per_s=0)
    assert up(mscli, env).data["instance"]["state"] == "ready"
    rows = [tuple(line.split()) for line in noted.read_text().splitlines()]
    assert len(rows) == len(set(rows)), "bytes were fetched twice"


def fetching(env: dict[str, str], *args: str) -> subprocess.Popen[str]:
    """An `mscli up` of its own, in the middle of its pull."""
    started = subprocess.Popen(
        [sys.executable, "-m", "mscli", "up", "small-q4", "--yes", "--events", *args],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stdout is not None
    next(line for line in started.stdout if '"done_bytes"' in line and '"done_bytes": 0' not in line)
    return started


def ended(started: subprocess.Popen[str]) -> dict[str, Any]:
    """How it ended: its last event."""
    out, _ = started.communicate(timeout=60)
    return dict(json.loads(out.strip().splitlines()[-1]))


def test_status_tells_how_far_the_weights_are_and_down_ends_their_fetch(
    mscli: Mscli, machine: Machine, scene: Scene, user_env: dict[str, str]
) -> None:
    scene.play(bytes_per_s=60_000)
    env = {**user_env, **machine("rtx4090")}
    first = fetching(env)
    seen = mscli("status", "--json", env=env)
    told = seen.data["fetching"][0]
    assert (seen.code, seen.data["instances"]) == (0, [])
    assert (told["name"], told["profile"], told["pid"]) == ("small-q4", "small-q4", first.pid)
    assert told["total_bytes"] > 1_000_000
    assert "fetching weights" in mscli("status", "small-q4", env=env).out

    down = mscli("down", env=env)
    assert (down.code, "its start was stopped" in down.out) == (0, True)
    assert "stopped by another mscli" in ended(first)["error"]["message"]
    assert (mscli("status", env=env).code, _stand_ins(user_env)) == (3, [])

    scene.play(bytes_per_s=0)
    assert up(mscli, env).data["instance"]["state"] == "ready"
    rows = served(env).read_text().splitlines()
    assert len(rows) == len(set(rows)), "bytes were fetched twice"


def test_down_ends_a_pull_through_an_adopted_server_and_nothing_comes_into_memory(
    mscli: Mscli, machine: Machine, scene: Scene, start: Callable[..., Server], user_env: dict[str, str]
) -> None:
    scene.play(bytes_per_s=60_000)
    server = start(**machine("rtx4090"))
    env = {**user_env, **machine("rtx4090"), "OLLAMA_HOST": server.host}
    first = fetching(env, "--adopt")
    shown = mscli("status", "--json", env=env).data["instances"][0]
    assert (shown["state"], shown["note"].startswith("fetching weights")) == ("starting", True)
    assert mscli("down", "small-q4", env=env).code == 0
    assert "stopped by another mscli" in ended(first)["error"]["message"]
    scene.play(bytes_per_s=0)
    assert (models(server.url, "ps"), models(server.url)) == ([], [])


def test_down_ends_a_load_on_an_adopted_server_and_nothing_comes_into_memory(
    mscli: Mscli, machine: Machine, scene: Scene, start: Callable[..., Server], user_env: dict[str, str]
) -> None:
    """A server gives up a load whose client leaves; to unload the model meanwhile is in vain."""
    scene.play(load_s=600)
    server = start(**machine("rtx4090"))
    env = {**user_env, **machine("rtx4090"), "OLLAMA_HOST": server.host}
    first = subprocess.Popen(
        [sys.executable, "-m", "mscli", "up", "small-q4", "--yes", "--events", "--adopt"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert eventually(lambda: f"{ALIAS}:latest" in models(server.url), 50)
    shown = mscli("status", "--json", env=env).data["instances"][0]
    assert (shown["state"], shown["note"]) == ("starting", "the server is up and loading the model")
    assert mscli("down", "small-q4", "--purge", env=env).code == 0
    assert "stopped by another mscli" in ended(first)["error"]["message"]
    scene.play(load_s=0)
    assert (models(server.url, "ps"), models(server.url)) == ([], [SMALL])


def test_down_does_not_say_that_a_model_is_out_of_a_memory_that_it_cannot_reach(
    mscli: Mscli, machine: Machine, start: Callable[..., Server]
) -> None:
    server = start(**machine("rtx4090"))
    env = {**machine("rtx4090"), "OLLAMA_HOST": server.host}
    assert up(mscli, env, "--adopt").code == 0
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        frozen = mscli("down", "--json", env=env)
        assert frozen.error["code"] == "stop_failed"
        assert "may still be in its memory" in frozen.error["message"]
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert mscli("down", env=env).code == 0
    assert models(server.url, "ps") == []


def test_down_waits_for_another_clients_stream_and_says_so(
    mscli: Mscli, machine: Machine, scene: Scene, start: Callable[..., Server], user_env: dict[str, str]
) -> None:
    server = start(**machine("rtx4090"))
    env = {**user_env, **machine("rtx4090"), "OLLAMA_HOST": server.host}
    assert up(mscli, env, "--adopt").code == 0
    scene.play(token_s=600)
    asked = {"model": ALIAS, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=asked, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        down = subprocess.Popen(
            [sys.executable, "-m", "mscli", "down"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert down.stderr is not None
        next(line for line in down.stderr if "waiting for another client's request" in line)
        assert models(server.url, "ps") == [f"{ALIAS}:latest"]
        scene.play(token_s=0)
        assert "[DONE]" in "".join(lines)
    assert down.wait(60) == 0
    assert models(server.url, "ps") == []


def test_the_same_up_meanwhile_waits_and_down_ends_both(
    mscli: Mscli, machine: Machine, scene: Scene, user_env: dict[str, str]
) -> None:
    scene.play(bytes_per_s=60_000)
    env = {**user_env, **machine("rtx4090")}
    first = fetching(env)
    second = subprocess.Popen(
        [sys.executable, "-m", "mscli", "up", "small-q4", "--yes", "--events"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert second.stdout is not None
    next(line for line in second.stdout if '"stage": "waiting"' in line)
    assert {each["pid"] for each in mscli("status", "--json", env=env).data["fetching"]} == {first.pid, second.pid}
    assert mscli("down", "--all", env=env).code == 0
    for each in (first, second):
        assert "stopped by another mscli" in ended(each)["error"]["message"]
    assert _stand_ins(user_env) == []


def test_without_ollama_it_says_how_to_get_it(mscli: Mscli, machine: Machine, program: Path) -> None:
    program.unlink()
    failed = up(mscli, machine("rtx4090"), "--no-install")
    assert failed.error["code"] == "engine_missing"
    assert "mscli engines install ollama" in failed.error["hint"]


def test_pull_leaves_a_server_that_runs_alone(mscli: Mscli, start: Callable[..., Server]) -> None:
    server = start()
    done = mscli("pull", "small-q4", "--json", env={"OLLAMA_HOST": server.host})
    assert done.data["bytes"] == 3_001_051
    assert models(server.url) == []
    assert server.process.poll() is None


def test_pull_alone_starts_a_server_for_as_long_as_it_takes(mscli: Mscli, user_env: dict[str, str]) -> None:
    assert mscli("pull", "small-q4", "--json").data["model"] == SMALL
    stored = served(user_env).parent / "manifests"
    assert [path.name for path in stored.rglob("*") if path.is_file()] == [SMALL.split(":")[1]]
    assert _stand_ins(user_env) == []


def test_a_pull_alone_that_is_killed_leaves_no_server_and_loses_no_byte(
    mscli: Mscli, scene: Scene, user_env: dict[str, str]
) -> None:
    scene.play(bytes_per_s=1_500_000)
    noted = served(user_env)
    killed = subprocess.Popen(
        [sys.executable, "-m", "mscli", "pull", "small-q4", "--events"], env=user_env, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    for _ in killed.stdout:
        if noted.exists() and noted.read_text().count("\n") > 20:
            break
    killed.kill()
    killed.wait()
    assert eventually(lambda: _stand_ins(user_env) == [])
    scene.play(bytes_per_s=0)
    assert mscli("pull", "small-q4", "--json").data["bytes"] == 3_001_051
    rows = noted.read_text().splitlines()
    assert len(rows) == len(set(rows)), "bytes were fetched twice"


def test_a_server_that_cannot_start_for_a_pull_is_named(mscli: Mscli, program: Path) -> None:
    program.write_text("#!/bin/sh\necho 'Error: mkdir /srv/models: permission denied' >&2\nexit 1\n")
    assert mscli("pull", "small-q4", "--json").error["details"]["cause"] == "permissions"


def _stand_ins(env: dict[str, str]) -> list[int]:
    """The stand-ins of this test that live: those that play its scene."""
    mark = f"OLLAMA_STANDIN={env['OLLAMA_STANDIN']}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            playing = mark in (entry / "environ").read_bytes().split(b"\0")
            alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            continue
        if playing and alive and b"serve" in (entry / "cmdline").read_bytes().split(b"\0"):
            found.append(int(entry.name))
    return found


def eventually(holds: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_offline_fetches_nothing_and_leaves_no_server(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx4090")
    refused = up(mscli, env, "--offline")
    assert (refused.error["code"], refused.error["details"]["cause"]) == ("weights_missing", "offline")
    assert mscli("status", env=env).code == 3
    assert mscli("pull", "small-q4", "--json", env=env).code == 0
    assert up(mscli, env, "--offline").code == 0


def test_an_idle_model_is_unloaded_by_ollama_itself(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx4090")
    up(mscli, env, "--idle-stop", "1s")

    def shown() -> dict[str, Any]:
        return dict(mscli("status", "--json", env=env).data["instances"][0])

    until(lambda: shown()["state"] == "unloaded")
    assert shown()["idle_stop_s"] == 1
    assert mscli("chat", "hello", env=env).code == 0


def test_the_idle_time_of_an_adopted_server_is_its_own(
    mscli: Mscli, machine: Machine, start: Callable[..., Server]
) -> None:
    env = machine("rtx4090")
    env["OLLAMA_HOST"] = start(**env).host
    done = up(mscli, env, "--adopt", "--idle-stop", "30m")
    assert (done.code, done.error["code"]) == (2, "usage")
    assert "--idle-stop" in done.error["message"]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_supervised_server_and_its_runner_are_killed_and_answer_again(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx4090")
    companion = up(mscli, env, "--supervise").data["instance"]["pid"]

    def shown() -> dict[str, Any]:
        return dict(mscli("status", "--json", env=env).data["instances"][0])

    (gateway,) = children(companion)
    (server,) = children(gateway)
    assert shown()["state"] == "ready"
    until(lambda: children(server))
    for runner in children(server):
        os.kill(runner, signal.SIGKILL)
    until(lambda: shown()["state"] == "unloaded")
    assert mscli("chat", "hello", env=env).code == 0
    os.kill(server, signal.SIGKILL)
    until(lambda: shown()["restarts"] == 1 and shown()["state"] in ("ready", "unloaded"))
    assert mscli("chat", "hello", env=env).code == 0
    assert mscli("down", env=env).code == 0
