"""A user's home with one engine in it and a tiny twin of Mistral Small 3.1 to serve: what `mscli up` is given."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.engines.installed_engines import CACHE
from support.run_mscli import Ran, call, environment
from support.tiny_twin import described

DEADLINE_S = 600.0
KEY = "a-key-of-the-test"

MODEL = described("Tiny twin of Mistral Small 3.1", """\
capabilities: [vision, tools]
sampling: {temperature: 0.15}
variants:
  bf16: &hugging-face
    format: safetensors-hf
    quantisation: bf16
    weights_bytes: 4327936
    projector_bytes: 436992
    download_bytes: 5000000
    bytes_source: made for a test
    source: {kind: hub, repository: tests/twin, files: ["*.json", "model*.safetensors", "*.jinja"]}
  bnb-4bit: {<<: *hugging-face, quantisation: bnb-4bit}
  bnb-8bit: {<<: *hugging-face, quantisation: bnb-8bit}
  isq-q4k: {<<: *hugging-face, quantisation: isq-q4k}
  isq-q8_0: {<<: *hugging-face, quantisation: isq-q8_0}
  mistral:
    <<: *hugging-face
    format: safetensors-mistral
    source: {kind: hub, repository: tests/twin, files: [params.json, "consolidated*.safetensors", tekken.json]}
""", released="2026-11-20")  # fmt: skip
PROFILE = """\
title: The tiny twin on {engine}
engine: {engine}
model: twin
variant: {variant}
device: cpu
context: {{floor: 1024, target: 8192}}
images: 1
automatic: false
options: {options}
"""


@dataclass(frozen=True)
class Twin:
    """How an engine serves the twin. `variable`: names the engine's place for mscli; `installed`: where it may be."""

    engine: str
    variant: str
    weights: tuple[str, ...] = ("hugging-face",)
    variable: str | None = None
    installed: str = ""
    options: str = "{}"

    def place(self) -> Path | None:
        """The engine to test with: what the variable names already, else what was installed for tests."""
        if self.variable is None:
            return None
        if named := os.environ.get(self.variable):
            return Path(named)
        return next(iter(sorted(filter(Path.is_dir, CACHE.glob(self.installed)), reverse=True)), None)


TWINS = {
    twin.engine: twin
    for twin in (
        Twin("llama.cpp", "q8_0"),
        Twin("transformers", "bf16", variable="MSCLI_TRANSFORMERS", installed="transformers-*"),
        Twin("mistral.rs", "isq-q4k", variable="MSCLI_MISTRALRS", installed="mistralrs-*"),
        Twin("vllm", "mistral", ("mistral",), "MSCLI_VLLM", "vllm-*[0-9]", "{enforce-eager: true}"),
    )
}


@dataclass(frozen=True)
class Home:
    """One user's home. `start`: what follows `mscli up`."""

    folder: Path
    env: Mapping[str, str]
    start: tuple[str, ...]

    def mscli(self, *args: str, env: Mapping[str, str] | None = None) -> Ran:
        """One call of mscli."""
        return call(*args, env={**self.env, **(env or {})}, timeout_s=DEADLINE_S)

    def up(self, *args: str, env: Mapping[str, str] | None = None) -> Ran:
        """`mscli up` of the twin."""
        return self.mscli("up", *self.start, "--json", *args, env=env)


def make_home(twin: Twin, folder: Path, weights: Path | None, options: str | None = None) -> Home:
    """A home with the twin in its catalogue. llama.cpp has one that comes with mscli."""
    env = environment(folder, folder)
    if shared := os.environ.get("VLLM_CACHE_ROOT"):
        env["VLLM_CACHE_ROOT"] = shared
    if twin.variable and (place := twin.place()):
        env[twin.variable] = str(place)
    if weights is None:
        return Home(folder, env, ("rehearsal",))
    models = folder / "config" / "profiles" / "models"
    models.mkdir(parents=True)
    (models / "twin.yaml").write_text(MODEL)
    profile = folder / "twin-profile.yaml"
    profile.write_text(
        PROFILE.format(engine=twin.engine, variant=twin.variant, options=options or twin.options)
    )  # fmt: skip
    return Home(folder, env, ("--file", str(profile), "--weights", str(weights)))


@dataclass(frozen=True)
class Client:
    """Whoever speaks OpenAI's API to an instance."""

    url: str
    model: str
    key: str | None

    def get(self, path: str) -> Any:
        """The JSON at a path below the base URL."""
        return json.loads(self._send(urllib.request.Request(f"{self.url}{path}", headers=self._headers()))[1])

    def post(self, key: str | None = None, **body: Any) -> tuple[int, str]:
        """Status and text of a chat completion."""
        headers = self._headers() | ({"Authorization": f"Bearer {key}"} if key else {})
        data = json.dumps({"model": self.model, "temperature": 0.1, "max_tokens": 64, **body}).encode()
        return self._send(urllib.request.Request(f"{self.url}/chat/completions", data, headers))

    def ask(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """The whole reply."""
        status, text = self.post(messages=messages, **more)
        assert status == 200, text
        return dict(json.loads(text)["choices"][0])

    def stream(self, messages: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
        """The events of a streamed reply."""
        status, text = self.post(messages=messages, stream=True, **more)
        assert status == 200, text
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]

    def _headers(self) -> dict[str, str]:
        key = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {"Content-Type": "application/json", **key}

    def _send(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()


@dataclass(frozen=True)
class Running:
    """A ready instance. `data`: what `mscli up --json` said of it."""

    home: Home
    data: dict[str, Any]
    client: Client


def deltas(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each event of a stream adds."""
    return [event["choices"][0]["delta"] for event in events if event["choices"]]
