"""The stand-in answers as a real Ollama does: each row is asked of both, of the real one where one is on PATH.

`number`: the rows of the table in which a real 0.33.0 was compared with the first stand-in. Of its 41 rows these
are not asked of both here:

3           the end of a stream whose process died: asked of both in test_ollama_truth.py, with a fault that is played
5, 6, 7     a stalled part begins again after 31 s, parts are of at least 100 MB: as played in test_ollama_pull.py
34 in part  the queue: 503 comes with the 513th request that waits
35          what a damaged or missing file says: the stand-in reads none, it is played in test_ollama_serving.py
38 in part  push and /v1/embeddings: nothing of mscli asks them, the stand-in has none; /v1/responses and /v1/messages:
            what agents send there, asked of both in test_ollama_truth.py
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.ollama.registry import registry
from support.ollama.standins import STANDIN
from support.ollama.tiny import GGUF, GO_TEMPLATE, PLAIN_GGUF, answers, eventually, give, loaded, program, tags

GGUF_TEMPLATE, GO, PLAIN, NOBODY = "gguf:latest", "go:latest", "plain:latest", "nobody"
CONTEXT = 2048
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HELLO = [{"role": "user", "content": "hello"}]
LONG = [{"role": "user", "content": "word " * 12_000}]
MANY = [{"role": ("user", "assistant")[turn % 2], "content": "word " * 300} for turn in range(21)]


@dataclass(frozen=True)
class At:
    """A server that runs, with a model of each kind: one with the template in its file, one with Ollama's own."""

    argv: tuple[str, ...]
    url: str
    log: Path
    small: dict[str, Any]  # what to pull

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, json=body, timeout=60, **more)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.ask("POST", path, body)

    def chat(self, model: str, messages: list[dict[str, Any]], **more: Any) -> httpx.Response:
        return self.post("/api/chat", model=model, messages=messages, stream=False, **more)

    def openai(self, model: str, messages: Any, **more: Any) -> httpx.Response:
        return self.post("/v1/chat/completions", model=model, messages=messages, **more)

    def lines(self, path: str, **body: Any) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.post(path, **body).text.splitlines() if line]

    def make(self, name: str, source: str, **parameters: Any) -> None:
        made = self.post("/api/create", model=name, parameters=parameters, stream=False, **{"from": source})
        assert made.status_code == 200, made.text


@pytest.fixture(scope="module", params=["stand-in", pytest.param("real", marks=pytest.mark.ollama)])
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[At]:
    folder, argv = tmp_path_factory.mktemp("server"), (sys.executable, "-S", str(STANDIN))
    if request.param == "real":
        if (found := program()) is None:
            pytest.skip("no ollama binary on PATH")
        argv = (found,)
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "scene").write_text(json.dumps({"registry": {"small:q8": {"layers": [20_000, 800]}}}))
    with registry() as place, served(argv, folder, host) as log:
        small = {"model": "small:q8" if request.param == "stand-in" else f"{place}/library/small:q8", "insecure": True}
        for name, more in ((GGUF_TEMPLATE, {}), (GO, {"template": GO_TEMPLATE}), (PLAIN, {})):
            content = PLAIN_GGUF if name == PLAIN else GGUF.read_bytes()
            give(f"http://{host}", name, content, parameters={"num_ctx": CONTEXT, "temperature": 0.15}, **more)
        yield At(argv, f"http://{host}", log, small)


@contextmanager
def served(argv: tuple[str, ...], folder: Path, host: str, **more: str) -> Iterator[Path]:
    """A server that runs, with this folder for a home; its log. `more`: of its environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OLLAMA_")}
    own = {"HOME": str(folder), "OLLAMA_HOST": host, "OLLAMA_NO_CLOUD": "1", "CUDA_VISIBLE_DEVICES": "-1"}
    log = folder / f"log-{host}"
    with log.open("wb") as output:
        env = {**kept, **own, "OLLAMA_STANDIN": str(folder / "scene"), **more}
        server = subprocess.Popen([*argv, "serve"], env=env, stdout=output, stderr=output)
    try:
        yield log
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def another(at: At, **env: str) -> Iterator[At]:
    """A further server of this kind, on the same models unless `env` says otherwise."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    with served(at.argv, at.log.parent, host, **env) as log:
        assert eventually(lambda: answers(f"http://{host}"))
        yield At(at.argv, f"http://{host}", log, at.small)


def kind(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.headers.get("Content-Type", "").partition(";")[0]


def error(answer: httpx.Response) -> tuple[int, Any]:
    said = answer.json()["error"]
    return answer.status_code, said


def one_slot(at: At) -> list[dict[str, int]]:
    """Which models are listed after each of three loads of the same weights."""
    seen = []
    for name, context in (("mscli/x", 2048), ("mscli/y", 4096), ("mscli/z", 4096)):
        at.make(name, GGUF_TEMPLATE, num_ctx=context)
        at.post("/api/generate", model=name, keep_alive=-1)
        seen.append(loaded(at.url))
    at.post("/api/generate", model="mscli/x", keep_alive=0)
    assert eventually(lambda: loaded(at.url) == {})
    return [*seen, loaded(at.url)]


def temperatures(at: At) -> list[str]:
    """With what temperature the model runs: asked natively, and through OpenAI's endpoint without one."""
    before = at.log.stat().st_size
    at.chat(GGUF_TEMPLATE, HELLO, options={"num_predict": 2})
    at.openai(GGUF_TEMPLATE, HELLO, max_tokens=2)
    seen = re.compile(rb"temp = ([\d.]+)")
    assert eventually(lambda: len(seen.findall(at.log.read_bytes()[before:])) >= 2)
    return [value.decode() for value in seen.findall(at.log.read_bytes()[before:])]


def started(at: At) -> list[bool]:
    text = at.log.read_text(errors="replace")
    signs = ("server config", "Listening on", "discovering available GPUs", "inference compute", "default context")
    return [sign in text for sign in signs]


def deleted(at: At) -> tuple[Any, ...]:
    """A model that is deleted while it is loaded: it stays, and can no longer be named."""
    at.make("mscli/gone", GGUF_TEMPLATE, num_ctx=1024)
    at.post("/api/generate", model="mscli/gone", keep_alive=-1)
    answer = at.ask("DELETE", "/api/delete", {"model": "mscli/gone"})
    left = loaded(at.url)
    status = at.post("/api/generate", model="mscli/gone", keep_alive=0).status_code
    at.post("/api/generate", model=GGUF_TEMPLATE, keep_alive=0)
    assert eventually(lambda: loaded(at.url) == {})
    return answer.status_code, answer.content, left, status


def created(at: At) -> list[str]:
    said = at.lines("/api/create", model="mscli/told", parameters={"num_ctx": 1024}, **{"from": GGUF_TEMPLATE})
    statuses = [re.sub(r"sha256:[0-9a-f]+", "sha256:", line["status"]) for line in said]
    return list(dict.fromkeys(statuses))


def without_base(at: At) -> tuple[int, list[str]]:
    """The server tries to pull a base that it does not have, and tells of that in the stream."""
    answer = at.post("/api/create", model="mscli/none", **{"from": NOBODY})
    said = [json.loads(line) for line in answer.text.splitlines()]
    return answer.status_code, [line.get("status") or line["error"].partition(":")[0] for line in said]


def longest(at: At) -> dict[str, int]:
    """A context beyond the model's own is cut to that."""
    at.post("/api/generate", model=GGUF_TEMPLATE, options={"num_ctx": 400_000})
    seen = loaded(at.url)
    at.post("/api/generate", model=GGUF_TEMPLATE, keep_alive=0)
    assert eventually(lambda: loaded(at.url) == {})
    return seen


def system_prompts(at: At) -> list[bool]:
    """Whether the prompt is longer than without the model's own system prompt: it is inherited, and goes before a
    conversation that does not begin with one."""
    base = {"from": GGUF_TEMPLATE, "stream": False}
    at.post("/api/create", model="brief", system="Be brief. " * 50, **base)
    at.post("/api/create", model="inherits", **{**base, "from": "brief"})
    own, late = [{"role": "system", "content": "Hi"}, *HELLO], [*HELLO, {"role": "system", "content": "Hi"}, *HELLO]

    def read(model: str, messages: list[dict[str, Any]]) -> int:
        return int(at.chat(model, messages, options={"num_predict": 1}).json()["prompt_eval_count"])

    pairs = [("brief", HELLO), ("inherits", HELLO), ("brief", own), ("brief", late)]
    return [read(model, messages) > read(GGUF_TEMPLATE, messages) + 50 for model, messages in pairs]


def refused_start(at: At, **env: str) -> tuple[int, str]:
    """How a further server ends, and its last words."""
    told = {**os.environ, "HOME": str(at.log.parent), "OLLAMA_HOST": "127.0.0.1:0", **env}
    done = subprocess.run([*at.argv, "serve"], env=told, capture_output=True, text=True, timeout=60, check=False)
    last = done.stderr.strip().splitlines()[-1]
    return done.returncode, last.replace(str(at.log), "LOG").replace(at.host, "HOST")


def frames(at: At) -> tuple[Any, ...]:
    """The fields of the last frame, and how a reply ends that is as long as it may be."""
    said = at.lines("/api/chat", model=GGUF_TEMPLATE, messages=HELLO, options={"num_predict": 2})
    text = at.lines("/api/generate", model=GGUF_TEMPLATE, prompt="hello", options={"num_predict": 2})
    short = at.openai(GGUF_TEMPLATE, HELLO, max_tokens=2).json()
    return (
        sorted(said[-1]), said[-1]["done_reason"], said[-1]["eval_count"], [line["done"] for line in said][-1],
        sorted(text[-1]), short["choices"][0]["finish_reason"], short["usage"]["completion_tokens"],
    )  # fmt: skip


def ignored(at: At) -> str:
    """max_completion_tokens is passed over."""
    body = at.openai(GGUF_TEMPLATE, HELLO, max_completion_tokens=1, max_tokens=3, n=2).json()
    return f"{len(body['choices'])} choice, {body['usage']['completion_tokens']} tokens"


def evaluated(at: At, model: str, messages: list[dict[str, Any]], **more: Any) -> str:
    """How many tokens of a prompt that does not fit are read: `refused`, `some` or `all` but a message."""
    answer = at.chat(model, messages, options={"num_predict": 1}, **more)
    if answer.status_code != 200:
        words = json.loads(answer.json()["error"])["error"]["message"]
        return f"{answer.status_code} " + re.sub(r"\d+", "N", words)
    count = int(answer.json()["prompt_eval_count"])
    return "half" if count <= CONTEXT // 2 + 10 else "nearly all" if CONTEXT * 3 // 4 < count < CONTEXT else str(count)


def listed(at: At) -> tuple[Any, ...]:
    at.post("/api/generate", model=GGUF_TEMPLATE, keep_alive=-1)
    entry = at.ask("GET", "/api/ps").json()["models"][0]
    status = at.post("/api/generate", model="GGUF", keep_alive=0)
    assert eventually(lambda: loaded(at.url) == {})
    return "modified_at" in entry, int(entry["expires_at"][:4]) > 2200, entry["context_length"], status.json()["model"]


def blob(at: At, content: bytes, digest: str) -> tuple[int, bool]:
    answer = httpx.post(f"{at.url}/api/blobs/{digest}", content=content, timeout=60)
    return answer.status_code, "digest mismatch" in answer.text


def copied(at: At) -> tuple[int, bytes, bool, tuple[int, Any]]:
    answer = at.post("/api/copy", source=GGUF_TEMPLATE, destination="copy")
    there = "copy:latest" in tags(at.url)
    return answer.status_code, answer.content, there, error(at.post("/api/copy", source=NOBODY, destination="copy"))


def pulled(at: At) -> tuple[Any, ...]:
    """What a pull says but for the lines of blobs, and what is said of each blob that is there already."""
    first = at.lines("/api/pull", **at.small)
    again = [line for line in at.lines("/api/pull", **at.small) if "digest" in line]
    at.ask("DELETE", "/api/delete", {"model": at.small["model"]})
    return [line["status"] for line in first if "digest" not in line], [
        line["completed"] == line["total"] for line in again
    ]


def not_published(at: At) -> tuple[int, list[dict[str, Any]]]:
    """A registry that does not have the model: an error in the stream, after 200."""
    answer = at.post("/api/pull", **{**at.small, "model": at.small["model"].replace("small", "none")})
    return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]


def pruned(at: At) -> list[str]:
    """Which unfinished downloads a server that starts leaves alone: those of the last hour."""
    models = at.log.parent / "unfinished"
    (models / "blobs").mkdir(parents=True)
    for name, age_s in (("a", 7200), ("b", 600)):
        partial = models / "blobs" / f"sha256-{name * 64}-partial"
        partial.touch()
        os.utime(partial, (time.time() - age_s,) * 2)
    with another(at, OLLAMA_MODELS=str(models)):
        return [path.name[7] for path in (models / "blobs").iterdir()]


def one_model(at: At) -> tuple[Any, ...]:
    """OLLAMA_MAX_LOADED_MODELS and OLLAMA_NUM_PARALLEL: the model before is put out without a word, and the process has
    the context for each of the users."""
    with another(at, OLLAMA_MAX_LOADED_MODELS="1", OLLAMA_NUM_PARALLEL="2", OLLAMA_NOPRUNE="1") as narrow:
        for name in (GGUF_TEMPLATE, PLAIN):
            assert narrow.post("/api/generate", model=name, keep_alive=-1).status_code == 200
        assert eventually(lambda: len(loaded(narrow.url)) == 1)
        return loaded(narrow.url), f" -c {2 * CONTEXT} -np 2" in narrow.log.read_text(errors="replace")


def unable(at: At) -> tuple[int, Any]:
    """Tools for a model that has none."""
    answer = at.chat(PLAIN, HELLO, tools=TOOLS)
    at.post("/api/generate", model=PLAIN, keep_alive=0)
    return error(answer)


def tool_call(at: At) -> tuple[Any, ...]:
    """One call through both endpoints."""
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    native = at.chat(GGUF_TEMPLATE, asked, tools=TOOLS, options={"num_predict": 60}).json()
    choice = at.openai(GGUF_TEMPLATE, asked, tools=TOOLS, max_tokens=60).json()["choices"][0]
    call, other = native["message"]["tool_calls"][0], choice["message"]["tool_calls"][0]
    ids = [bool(re.fullmatch(r"call_[a-z0-9]{8}|[A-Za-z0-9]{32}", each["id"])) for each in (call, other)]
    return ids, call["function"], other["function"], native["done_reason"], choice["finish_reason"]


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}]
SHA = "a" * 64
DIGEST = f"sha256:{hashlib.sha256(GGUF.read_bytes()).hexdigest()}"
FINAL = ["created_at", "done", "done_reason", "eval_count", "eval_duration", "load_duration"]
DURATIONS = ["model", "prompt_eval_count", "prompt_eval_duration"]
TOO_LONG = "400 request (N tokens) exceeds the available context size (N tokens), try increasing it"
VERIFIED = ["verifying sha256 digest", "writing manifest"]
NO_VISION = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"


def nested(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, json.loads(answer.json()["error"])["error"]["message"]


ROWS: list[tuple[int, str, Callable[[At], Any], Any]] = [
    (
        1,
        "one slot for each weights blob",
        one_slot,
        [{"mscli/x:latest": 2048}, {"mscli/y:latest": 4096}, {"mscli/y:latest": 4096}, {}],
    ),
    (2, "sampling on /v1 is 1.0 where none is sent", temperatures, ["0.150", "1.000"]),
    (4, "log at the start", started, [True] * 5),
    (8, "what a pull says", pulled, (["pulling manifest", *VERIFIED, "success"], [True] * 3)),
    (
        10,
        "a model that the registry does not have",
        not_published,
        (200, [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]),
    ),
    (11, "unfinished downloads after a restart", pruned, ["b"]),
    (12, "one message too long, template in the file", lambda at: evaluated(at, GGUF_TEMPLATE, LONG), TOO_LONG),
    (13, "the same, told not to cut", lambda at: evaluated(at, GGUF_TEMPLATE, LONG, truncate=False), TOO_LONG),
    (14, "too many messages: the oldest are dropped", lambda at: evaluated(at, GGUF_TEMPLATE, MANY), "nearly all"),
    (14, "the same, told not to cut", lambda at: evaluated(at, GGUF_TEMPLATE, MANY, truncate=False), TOO_LONG),
    (
        15,
        "an image without vision",
        lambda at: nested(at.chat(GGUF_TEMPLATE, [{**HELLO[0], "images": [PIXEL]}])),
        (500, NO_VISION),
    ),
    (
        16,
        "tools without the ability",
        unable,
        (400, "registry.ollama.ai/library/plain:latest does not support tools"),
    ),
    (
        17,
        "thinking without the ability",
        lambda at: error(at.chat(GGUF_TEMPLATE, HELLO, think=True)),
        (400, '"gguf:latest" does not support thinking'),
    ),
    (
        18,
        "a parameter of the wrong type",
        lambda at: (at.make("odd", GGUF_TEMPLATE, num_ctx="abc"), error(at.post("/api/generate", model="odd")))[1],
        (500, 'option "num_ctx" must be of type integer'),
    ),
    (19, "a context beyond the model's own", longest, {GGUF_TEMPLATE: 131072}),
    (
        20,
        "keep_alive without a unit",
        lambda at: error(at.post("/api/generate", model=GGUF_TEMPLATE, keep_alive="5")),
        (400, 'time: missing unit in duration "5"'),
    ),
    (
        20,
        "keep_alive that is none",
        lambda at: error(at.post("/api/generate", model=GGUF_TEMPLATE, keep_alive="abc")),
        (400, 'time: invalid duration "abc"'),
    ),
    (21, "delete does not unload", deleted, (200, b"", {"mscli/gone:latest": 1024}, 404)),
    (
        22,
        "an unknown path",
        lambda at: (kind(at.ask("GET", "/health")), at.ask("GET", "/health").text),
        ((404, "text/plain"), "404 page not found"),
    ),
    (
        22,
        "a wrong method",
        lambda at: (lambda got: (*kind(got), got.text, got.headers["Allow"]))(at.ask("GET", "/api/show")),
        (405, "text/plain", "405 method not allowed", "POST"),
    ),
    (
        23,
        "HEAD",
        lambda at: [at.ask("HEAD", path).status_code for path in ("/", "/api/version", "/api/tags")],
        [200, 200, 200],
    ),
    (
        23,
        "a foreign Host",
        lambda at: (lambda got: (got.status_code, got.content))(
            at.ask("GET", "/api/version", headers={"Host": "evil.example"})
        ),
        (403, b""),
    ),
    (
        23,
        "a foreign Origin",
        lambda at: (lambda got: (got.status_code, got.content))(
            at.ask("GET", "/api/version", headers={"Origin": "http://evil.example"})
        ),
        (403, b""),
    ),
    (
        23,
        "a local Origin",
        lambda at: at.ask("GET", "/api/version", headers={"Origin": "http://localhost:3000"}).headers[
            "Access-Control-Allow-Origin"
        ],
        "http://localhost:3000",
    ),
    (
        23,
        "a preflight",
        lambda at: (lambda got: (got.status_code, got.headers["Access-Control-Allow-Methods"]))(
            at.ask(
                "OPTIONS", "/api/chat", headers={"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}
            )
        ),
        (204, "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    ),
    (
        24,
        "an invalid name",
        lambda at: error(at.post("/api/create", model="a b", stream=False, **{"from": GGUF_TEMPLATE})),
        (400, "invalid model name"),
    ),
    (24, "names without regard to case", lambda at: at.post("/api/show", model="GGUF").status_code, 200),
    (
        25,
        "show of an unknown model",
        lambda at: error(at.post("/api/show", model=NOBODY)),
        (404, "model 'nobody:latest' not found"),
    ),
    (
        26,
        "what create says",
        created,
        ["using existing layer sha256:", "creating new layer sha256:", "writing manifest", "success"],
    ),
    (27, "a base that is not there", without_base, (200, ["pulling manifest", "pull model manifest"])),
    (28, "the model's own system prompt", system_prompts, [True, True, False, True]),
    (
        29,
        "frames, and a reply of full length",
        frames,
        (
            [*FINAL, "message", *DURATIONS, "total_duration"],
            "length",
            2,
            True,
            ["context", *FINAL, *DURATIONS, "response", "total_duration"],
            "length",
            2,
        ),
    ),
    (29, "max_completion_tokens and n are passed over", ignored, "1 choice, 3 tokens"),
    (
        30,
        "a call of a tool",
        tool_call,
        (
            [True, True],
            {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}},
            {"name": "get_weather", "arguments": '{"city":"Paris"}'},
            "stop",
            "tool_calls",
        ),
    ),
    (
        31,
        "an error of /v1",
        lambda at: error(at.openai(NOBODY, HELLO)),
        (404, {"message": "model 'nobody' not found", "type": "not_found_error", "param": None, "code": None}),
    ),
    (
        32,
        "a model is called as it was asked for",
        lambda at: at.chat("GGUF", HELLO, options={"num_predict": 1}).json()["model"],
        "GGUF",
    ),
    (33, "what is in memory", listed, (False, True, CONTEXT, "GGUF")),
    (
        33,
        "abilities in the list of models",
        lambda at: {entry["capabilities"][0] for entry in at.ask("GET", "/api/tags").json()["models"]},
        {"completion"},
    ),
    (34, "one model in memory, for two users", one_model, ({PLAIN: CONTEXT}, True)),
    (
        36,
        "requests are logged",
        lambda at: (
            at.ask("GET", "/api/version"),
            eventually(
                lambda: (
                    re.search(
                        r'\[GIN\] \S+ - \S+ \| 200 \|.*\| GET +"/api/version"', at.log.read_text(errors="replace")
                    )
                    is not None
                )
            ),
        )[1],
        True,
    ),
    (
        37,
        "context and users of the process that holds a model",
        lambda at: " -c 2048 -np 1" in at.log.read_text(errors="replace"),
        True,
    ),
    (38, "copy", copied, (200, b"", True, (404, 'model "nobody" not found'))),
    (38, "status", lambda at: at.ask("GET", "/api/status").json()["cloud"]["disabled"], True),
    (
        38,
        "one model of /v1",
        lambda at: (
            at.ask("GET", f"/v1/models/{GGUF_TEMPLATE}").json()["id"],
            at.ask("GET", f"/v1/models/{NOBODY}").status_code,
        ),
        (GGUF_TEMPLATE, 404),
    ),
    (
        38,
        "completions",
        lambda at: at.post("/v1/completions", model=GGUF_TEMPLATE, prompt="hello", max_tokens=2).json()["usage"][
            "completion_tokens"
        ],
        2,
    ),
    (
        38,
        "a blob that is there, and one that is not",
        lambda at: [at.ask("HEAD", f"/api/blobs/sha256:{digest}").status_code for digest in (SHA, "x")],
        [404, 400],
    ),
    (
        38,
        "embed",
        lambda at: error(at.post("/api/embed", model=GGUF_TEMPLATE, input="x")),
        (501, "This server does not support embeddings. Start it with `--embeddings`"),
    ),
    (39, "no body", lambda at: error(at.ask("POST", "/api/show")), (400, "missing request body")),
    (
        39,
        "no JSON",
        lambda at: error(httpx.post(f"{at.url}/api/show", content=b"{x")),
        (400, "invalid character 'x' looking for beginning of object key string"),
    ),
    (
        39,
        "no messages for /v1",
        lambda at: error(at.openai(GGUF_TEMPLATE, []))[1]["message"],
        "[] is too short - 'messages'",
    ),
    (
        39,
        "messages of the wrong type",
        lambda at: error(at.post("/api/chat", model=GGUF_TEMPLATE, messages="x")),
        (400, "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message"),
    ),
    (39, "no model for show", lambda at: error(at.post("/api/show", name="")), (400, "model is required")),
    (
        40,
        "a port that is taken",
        lambda at: refused_start(at, OLLAMA_HOST=at.host),
        (1, "Error: listen tcp HOST: bind: address already in use"),
    ),
    (
        40,
        "a file in the way of the models",
        lambda at: refused_start(at, OLLAMA_MODELS=str(at.log)),
        (1, "Error: mkdir LOG: not a directory: ensure path elements are traversable"),
    ),
    (41, "a blob with another digest", lambda at: blob(at, b"x", f"sha256:{SHA}"), (400, True)),
    (41, "a blob that is there already", lambda at: blob(at, GGUF.read_bytes(), DIGEST)[0], 200),
]


@pytest.mark.parametrize(("number", "what", "look", "expected"), ROWS, ids=[f"{n} {what}" for n, what, _, _ in ROWS])
def test_it_answers_as_a_real_one(at: At, number: int, what: str, look: Callable[[At], Any], expected: Any) -> None:
    assert look(at) == expected
