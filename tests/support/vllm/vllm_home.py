"""mscli with a real vLLM and tiny models in a home of its own: what `mscli up` needs, as a user would write it."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mscli.catalog.load import load_one
from mscli.instances import process
from mscli.paths import shipped_profiles
from support.run_mscli import Ran, call
from support.tiny_models import TinyFiles
from support.tiny_twin import described

DEADLINE_S = 600.0
MODEL = """\
capabilities: [{capabilities}]
reasoning: {reasoning}
sampling: {{temperature: 0.15{longest}}}
{prompt}variants:
  mistral: &weights
    format: safetensors-mistral
    quantisation: bf16
    weights_bytes: 4400000
    projector_bytes: {projector}
    download_bytes: 5000000
    bytes_source: made for a test
    source:
      kind: hub
      repository: tests/tiny-{variant}
      files: [params.json, "consolidated*.safetensors", tekken.json]
  hugging-face:
    <<: *weights
    format: safetensors-hf
    source:
      kind: hub
      repository: tests/tiny-{variant}
      files: ["*.json", "model*.safetensors", "*.jinja"]
"""
# What the catalogue says of each kind of tiny model: released, capabilities, reasoning, system prompt.
PROMPT = f"system_prompt: {json.dumps(load_one('magistral-bf16', shipped_profiles(), None)[1].system_prompt)}\n"
KINDS = {
    "small31": ("2025-03-17", "vision, tools", "none", ""),
    "magistral2506": ("2025-06-10", "tools, reasoning", "think-text", PROMPT),
    "magistral": ("2025-09-17", "tools, reasoning", "think-tokens", ""),
}
PROFILE = """\
title: A tiny model on the CPU
engine: vllm
model: {model}
variant: {variant}
device: cpu
images: {images}
context: {{floor: 1024, target: {context}}}
kv_types: [{kv}]
automatic: false
options:
  enforce-eager: true
{options}env:
  VLLM_CPU_KVCACHE_SPACE: "1"
"""


@dataclass(frozen=True)
class Home:
    """One user's home. `env`: the whole environment of the calls."""

    folder: Path
    env: Mapping[str, str]

    def mscli(self, *args: str, **more: str) -> Ran:
        """Runs mscli to its end; `more`: further environment variables."""
        return call(*args, env={**self.env, **more}, timeout_s=DEADLINE_S, quotes_logs=True)

    def write(self, variant: str, files: TinyFiles, *, name: str = "tiny", **more: Any) -> list[str]:
        """Writes a model and a profile `name` for these files. Returns the arguments of `mscli up` that serve them."""
        released, capabilities, reasoning, prompt = KINDS[variant]
        sees = variant == "small31"
        rest = MODEL.format(
            variant=variant,
            capabilities=capabilities,
            reasoning=reasoning,
            prompt=prompt,
            longest=f", max_tokens: {more.get('context', 2048)}" if prompt else "",
            projector=438272 if sees else 0,
        )
        model = described(f"Tiny {variant}", rest, released, sees)
        options = "".join(f"  {key}: {value}\n" for key, value in more.get("options", {}).items())
        profile = PROFILE.format(
            model=f"{name}-model",
            variant=more.get("format", "mistral"),
            images=more.get("images", 4 if sees else 0),
            kv=more.get("kv", "f16"),
            context=more.get("context", 2048),
            options=options,
        )
        profiles = self.folder / "config" / "profiles"
        (profiles / "models").mkdir(parents=True, exist_ok=True)
        (profiles / "models" / f"{name}-model.yaml").write_text(model)
        (profiles / f"{name}.yaml").write_text(profile)
        return ["up", name, "--weights", str(files.folder)]

    def instance(self, name: str = "tiny") -> dict[str, Any]:
        """What `mscli status` says of an instance."""
        return dict(self.mscli("status", name, "--json").envelope["data"]["instances"][0])

    def argv(self, name: str = "tiny") -> list[str]:
        """The command line of an instance, as the system knows it."""
        words = Path(f"/proc/{self.instance(name)['pid']}/cmdline").read_bytes().split(b"\0")
        return [word.decode() for word in words]

    def log(self, name: str = "tiny") -> str:
        """What the engine has written so far."""
        path = self.folder / "state" / "instances" / name / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_log(self, text: str, name: str = "tiny") -> None:
        """Waits until the engine's log holds `text`."""
        wait_for(lambda: text in self.log(name), lambda: f"{text!r} never came in the log:\n{self.log(name)}")

    def belongings(self) -> set[int]:
        """Living processes that carry this home in their environment or folder: all that an instance has started."""
        here = str(self.folder).encode()
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid() and here in _said(entry):
                seen = process.stat(int(entry.name))
                if seen and seen.state not in "ZX":
                    found.add(seen.pid)
        return found

    def named(self, title: str) -> int:
        """The process of this home that vLLM calls so: VLLM::EngineCore, VLLM::Worker."""
        found = [pid for pid in self.belongings() if title in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(found) == 1, f"{title}: {found} of {[process.describe(pid) for pid in self.belongings()]}"
        return found[0]

    def leftovers(self, name: str = "tiny") -> list[str]:
        """What is left of an instance's temporary files."""
        folder = self.folder / "state" / "instances" / name / "tmp"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


Homes = Callable[[Path], Home]


def _said(entry: Path) -> bytes:
    """Environment and working directory of a process, as far as this user may see them."""
    try:
        return (entry / "environ").read_bytes() + os.fsencode((entry / "cwd").readlink())
    except OSError:
        return b""


def wait_for(done: Callable[[], bool], otherwise: Callable[[], str], deadline_s: float = DEADLINE_S) -> None:
    """Waits until `done`, at most `deadline_s`; fails with `otherwise`."""
    deadline = time.monotonic() + deadline_s
    while not done():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


@dataclass(frozen=True)
class Client:
    """An OpenAI client of an instance."""

    url: str
    model: str
    key: str | None = None

    def post(self, path: str, body: Mapping[str, Any]) -> urllib.request.Request:
        """A request to be opened."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        return urllib.request.Request(f"{self.url}{path}", json.dumps({"model": self.model, **body}).encode(), headers)

    def chat(self, content: object, **more: Any) -> dict[str, Any]:
        """The assistant's message."""
        messages = more.pop("messages", [{"role": "user", "content": content}])
        request = self.post("/chat/completions", {"messages": messages, "max_tokens": 64, **more})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.loads(answer.read())["choices"][0]["message"])

    def stream(self, content: str, **more: Any) -> list[str]:
        """The lines of a streamed answer."""
        messages = [{"role": "user", "content": content}]
        request = self.post("/chat/completions", {"messages": messages, "stream": True, "max_tokens": 64, **more})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return [line.decode().strip() for line in answer if line.strip()]

    def get(self, path: str) -> Any:
        """What a GET answers."""
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


@contextmanager
def busy(client: Client) -> Iterator[None]:
    """While an endless answer is being streamed; its first piece has come."""
    body = {"prompt": "The weather in Paris", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    with urllib.request.urlopen(client.post("/completions", body), timeout=60) as answer:
        assert answer.readline().startswith(b"data: {")
        yield


@dataclass(frozen=True)
class Served:
    """A ready instance, with the events of its start."""

    home: Home
    client: Client
    events: list[dict[str, Any]]

    @property
    def up(self) -> dict[str, Any]:
        """What `mscli up` told at the end."""
        return dict(self.events[-1]["data"])


def assert_all_gone(home: Home) -> None:
    """Nothing of an instance is left: no process, so no listener either, and no temporary file."""
    assert home.belongings() == set(), [process.describe(pid) for pid in home.belongings()]
    assert home.leftovers() == []


def assert_killed_leaves_nothing(running: Served, pid: int) -> None:
    """SIGKILL of one of its processes: status tells that it is no more, and `down` ends what that left, if anything."""
    home = running.home
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: home.instance()["state"] == "crashed", lambda: str(home.instance()))
    down = home.mscli("down", "tiny", "--json")
    assert (down.code, [each["survivors"] for each in down.data["stopped"] if each["survivors"]]) == (0, [])
    assert_all_gone(home)


def served(home: Home, arguments: list[str], **env: str) -> Served:
    done = home.mscli(*arguments, "--events", **env)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0, f"{done.err}\n{events[-1]}"
    instance = events[-1]["data"]["instance"]
    return Served(home, Client(instance["base_url"], instance["model"], env.get("MSCLI_API_KEY")), events)
