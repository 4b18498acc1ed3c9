"""Options that several commands share, spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for scripts and nothing else.")]
Instance = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The instance; not needed if only one runs.")]
NameOption = Annotated[str | None, typer.Option("--name", help="The instance; not needed if only one runs.")]
TimeoutS = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait until it is ready.")]
Events = Annotated[
    bool, typer.Option("--events", help="Progress as JSON lines before the result; --json=stream is the same.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
Heal = Annotated[
    bool, typer.Option("--heal/--no-heal", help="Change the plan and try again when the engine dies at the start.")
]
ProfileFile = Annotated[
    Path | None, typer.Option("--file", "-f", help="A profile file to use in place of a named profile.")
]
