"""Options that several commands share, spelled, explained and checked once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
_WHICH = "The instance (default: the only one)."
Instance = Annotated[str | None, typer.Argument(metavar="[NAME]", help=_WHICH)]
InstanceOption = Annotated[str | None, typer.Option("--instance", "-i", "--name", metavar="NAME", help=_WHICH)]
TimeoutS = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Wait at most this long.")]
Events = Annotated[bool, typer.Option("--events", help="Print progress as JSON lines (same as --json=stream).")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Heal = Annotated[bool, typer.Option("--heal/--no-heal", help="Change the plan and retry if the start fails.")]
ProfileFile = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="Use a profile file in place of a named profile.")
]

# What `up` and `plan` change of a profile.
Context = Annotated[int | None, typer.Option("--ctx", metavar="N", min=1, help="Set the context length in tokens.")]
Gpus = Annotated[str | None, typer.Option("--gpus", metavar="GPUS", help="Use these GPUs (indices or UUIDs): 0,1.")]
Users = Annotated[
    int | None, typer.Option("--users", metavar="N", min=1, help="Plan for this many concurrent requests.")
]
Images = Annotated[int | None, typer.Option("--images", metavar="N", min=0, help="Allow this many images per request.")]
Kv = Annotated[str | None, typer.Option("--kv", metavar="TYPE", help="Set the KV cache type: f16, q8_0, q4_0, fp8.")]
Engine = Annotated[str | None, typer.Option("--engine", metavar="ENGINE", help="Use this engine only.")]
Container = Annotated[bool, typer.Option("--container", help="Run vLLM in a container (or --engine vllm-docker).")]
Variant = Annotated[str | None, typer.Option("--variant", metavar="VARIANT", help="Use this variant of the weights.")]
Prefer = Annotated[str | None, typer.Option("--prefer", metavar="WHAT", help="Prefer quality, speed or context.")]
ForAgents = Annotated[
    str | None, typer.Option("--for", metavar="CLIENT", help="Plan a context that coding agents can use: agents.")
]
Offload = Annotated[bool, typer.Option("--offload", help="Allow part of the weights in host memory.")]
