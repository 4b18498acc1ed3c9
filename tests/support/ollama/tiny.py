"""The rehearsal's model on Ollama: what a user's own server has of it, and the profile that runs it on the CPU."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY

import httpx

import mscli as package

TAG = "tiny:q8"
TIMEOUT_S = 60.0
GGUF = Path(package.__file__).parent / "rehearsal" / "rehearsal-q8_0.gguf"
# Another file of weights, whose template has no tools.
PLAIN_GGUF = GGUF.read_bytes().replace(b"tool", b"noun")
# Of Ollama's own kind. It keeps the template of the file where that one can do more.
GO_TEMPLATE = (
    "{{ if .Tools }}[AVAILABLE_TOOLS]{{ .Tools }}[/AVAILABLE_TOOLS]{{ end }}{{ if .System }}{{ .System }}{{ end }}"
    "{{ range .Messages }}[INST]{{ .Content }}[/INST]{{ if .ToolCalls }}{{ range .ToolCalls }}[TOOL_CALLS]"
    "{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ end }}{{ end }}"
)
# In the way of its library's models: a branch for each role that they know, which `developer` is not.
LIBRARY_TEMPLATE = (
    "{{ if .Tools }}[AVAILABLE_TOOLS]{{ .Tools }}[/AVAILABLE_TOOLS]{{ end }}{{ range .Messages }}"
    '{{ if eq .Role "system" }}[SYSTEM_PROMPT]{{ .Content }}[/SYSTEM_PROMPT]'
    '{{ else if eq .Role "user" }}[INST]{{ .Content }}[/INST]'
    '{{ else if eq .Role "assistant" }}{{ if .Content }}{{ .Content }}</s>{{ else if .ToolCalls }}'
    "{{ range .ToolCalls }}[TOOL_CALLS]{{ .Function.Name }}[ARGS]{{ .Function.Arguments }}{{ end }}</s>{{ end }}"
    '{{ else if eq .Role "tool" }}[TOOL_RESULTS]{{ .Content }}[/TOOL_RESULTS]{{ end }}{{ end }}'
)
# Inside a file, as strict as the makers': one system message, the user and the assistant by turns, ids of nine letters.
STRICT_TEMPLATE = """\
{{- bos_token }}
{%- set talk = messages %}
{%- if messages[0]["role"] == "system" %}
    {{- "[SYSTEM_PROMPT]" + messages[0]["content"] + "[/SYSTEM_PROMPT]" }}
    {%- set talk = messages[1:] %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in talk %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{%- for message in talk %}
    {%- if message["role"] == "user" %}
        {%- if tools %}{{- "[AVAILABLE_TOOLS]" + tools|tojson + "[/AVAILABLE_TOOLS]" }}{%- endif %}
        {{- "[INST]" + message["content"] + "[/INST]" }}
    {%- elif message.tool_calls %}
        {{- "[TOOL_CALLS][" }}
        {%- for call in message.tool_calls %}
            {%- if call.id is not defined or call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- call.function|tojson }}
        {%- endfor %}
        {{- "]" + eos_token }}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- "[TOOL_RESULTS]" + message.content|string + "[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user, system, assistant and tool roles are supported!") }}
    {%- endif %}
{%- endfor %}"""
_PROFILE = """title: The rehearsal's model on Ollama
engine: ollama
model: tiny
variant: q8_0
device: cpu
context:
  floor: 1024
  target: 4096
  cap: 131072
kv_types: [f16]
images: 0
automatic: false
rank: 1000
notes: for tests
"""
_VARIANT = """variants:
  q8_0:
    format: ollama
    quantisation: q8_0
    weights_bytes: 2302976
    projector_bytes: 438272
    host_bytes: 522240
    download_bytes: 2355744
    bytes_source: the tensors
    source:
      kind: ollama
      repository: tiny:q8
"""


def program() -> str | None:
    """A real `ollama` on PATH, None without one."""
    return shutil.which("ollama")


def write_profile(folder: Path, more: str = "") -> None:
    """The profile `tiny`, into the profiles folder of a user. `more`: further lines of it."""
    shipped = Path(package.__file__).parents[1] / "profiles" / "models" / "rehearsal.yaml"
    (folder / "models").mkdir(parents=True, exist_ok=True)
    head = shipped.read_text().partition("variants:")[0]
    (folder / "models" / "tiny.yaml").write_text(head + _VARIANT)
    (folder / "tiny.yaml").write_text(_PROFILE + more)


def give(url: str, name: str = TAG, content: bytes = GGUF.read_bytes(), **made: object) -> None:
    """Make the model on the server at `url` from its GGUF file, as `ollama create` does. `made`: more of the request,
    a template for example."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert eventually(lambda: answers(url)), f"the server at {url} did not start"
    httpx.post(f"{url}/api/blobs/{digest}", content=content, timeout=TIMEOUT_S).raise_for_status()
    body = {"model": name, "files": {GGUF.name: digest}, "stream": False, **made}
    httpx.post(f"{url}/api/create", json=body, timeout=TIMEOUT_S).raise_for_status()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/version", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def eventually(holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
    """Whether `holds` becomes true in time."""
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def loaded(url: str) -> dict[str, int]:
    """The models in memory, with their contexts; a server that tells none has any."""
    models = httpx.get(f"{url}/api/ps").json()["models"]
    return {model["name"]: model.get("context_length", ANY) for model in models}


def tags(url: str) -> set[str]:
    return {model["name"] for model in httpx.get(f"{url}/api/tags").json()["models"]}


def hashes(store: Path) -> dict[str, str]:
    """Every file of a models folder with its SHA-256."""
    files = (path for path in store.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
