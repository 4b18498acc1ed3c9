"""A user's home with a tiny model and a profile that serves it by vLLM in a container."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.tiny_twin import described

IMAGE = "docker.io/vllm/vllm-openai:v0.32.0"
HERE = Path(__file__).parent
KEY = "sk-very-secret-4711"
MODEL = described("Tiny twin of Mistral Small 3.1", """\
capabilities: [vision, tools]
sampling: {temperature: 0.15}
variants:
  mistral:
    format: safetensors-mistral
    quantisation: bf16
    weights_bytes: 4400000
    projector_bytes: 438272
    download_bytes: 5000000
    bytes_source: made for a test
    source: {kind: hub, repository: tests/tiny, files: [params.json, "consolidated*.safetensors", tekken.json]}
""")  # fmt: skip
PROFILE = """\
title: A tiny model in a container, on the CPU
engine: vllm-docker
image: {image}
model: tiny-model
variant: mistral
device: cpu
images: 1
context: {{floor: 1024, target: 2048}}
automatic: false
port: {port}
options: {options}
env: {{VLLM_CPU_KVCACHE_SPACE: "1", TORCH_COMPILE_DISABLE: "1"}}
"""


def write_profile(home: Path, image: str = IMAGE, options: str = "{enforce-eager: true}", name: str = "tiny") -> None:
    """The model and a profile `name` below the user's own."""
    models = home / "config" / "profiles" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / "tiny-model.yaml").write_text(MODEL)
    with socket.create_server(("127.0.0.1", 0)) as free:  # of its own: `restart` insists on having it again
        port = free.getsockname()[1]
    (models.parent / f"{name}.yaml").write_text(PROFILE.format(image=image, options=options, port=port))


@dataclass
class StandinDocker:
    """The stand-in for docker on PATH, and its daemon's folder."""

    place: Path
    programs: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.place.mkdir()
        self.install("docker")
        self.env = {"PATH": f"{self.programs}:{os.environ['PATH']}", "STANDIN_DOCKER": str(self.place)}

    def install(self, name: str) -> Path:
        """Put it on PATH under this name."""
        self.programs.mkdir(exist_ok=True)
        program = self.programs / name
        program.write_text(f"#!{sys.executable} -IS\nimport runpy\nrunpy.run_path({str(HERE / 'standin_docker.py')!r}, "
                           "run_name='__main__')\n")  # fmt: skip
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    def has(self, image: str = IMAGE) -> None:
        """The daemon has this image."""
        with (self.place / "images").open("a") as file:
            file.write(image + "\n")

    def flag(self, name: str) -> Path:
        """Set one of the switches that are files."""
        (self.place / name).touch()
        return self.place / name

    def goes_wrong(self, command: str, err: str, status: int = 125, **more: Any) -> None:
        """What the daemon says to a command from now on."""
        path = self.place / "says.json"
        said = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**said, command: {"err": err, "status": status, **more}}))

    def well(self) -> None:
        """Nothing goes wrong any more."""
        (self.place / "says.json").unlink(missing_ok=True)

    def calls(self, *first: str) -> list[list[str]]:
        """The calls so far that begin with these words."""
        path = self.place / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for line in lines if (call := json.loads(line))[: len(first)] == list(first)]

    def containers(self) -> list[str]:
        """The names of the containers that are there."""
        return sorted(path.stem for path in self.place.glob("mscli-*.json"))

    def server(self) -> int:
        """The pid of the program in the only container."""
        (kept,) = self.place.glob("mscli-*.json")
        return int(json.loads(kept.read_text())["pid"])
