"""`mscli env`: what clients need to know, as shell exports or as code to begin with."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.options import Instance, Json
from mscli.cli.screen import open_screen
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.instances.records import Record

_FOR = "Print code for curl, python, js, llm and others."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("env", epilog='Examples: eval "$(mscli env)"  |  mscli env --for curl')(env)


def env(
    ctx: typer.Context,
    name: Instance = None,
    client: Annotated[str | None, typer.Option("--for", metavar="CLIENT", help=_FOR)] = None,
    json: Json = False,
) -> None:
    """Print what clients need to know as shell exports.

    MSCLI_SYSTEM_PROMPT is set where the model card recommends a system prompt (Magistral reasons because of it).
    """
    from mscli.instances.records import Records, must_run, the_one
    from mscli.paths import places

    screen = open_screen(ctx, json)
    if client is not None:
        from mscli.cli.snippets import SNIPPETS, snippet

        if client not in SNIPPETS:
            raise MscliError(Code.USAGE, f"no code for {client!r}", f"Name one of {', '.join(SNIPPETS)}.")
    record = the_one(Records(places()), name)
    must_run(record)
    if client is not None:
        code = snippet(client, record.base_url, record.alias, record.sampling.temperature)
        screen.data({"client": client, "code": code}) if json else screen.text(code.rstrip("\n"))
        return
    values = _variables(record)
    if json:
        screen.data(values)
        return
    if record.plan.engine == "ollama" and record.gateway is None:
        from mscli.engines.ollama.flags import for_clients  # the table of engines would cost more than all the rest

        if told := for_clients(record.sampling):
            screen.note(f"note: {told}")
    screen.text("\n".join(f"export {key}={shlex.quote(value)}" for key, value in values.items()))


def _variables(record: Record) -> dict[str, str]:
    """What clients read, by the names that they know it by."""
    from mscli.agents.deployment import deployment_of

    told = deployment_of(record)
    return {
        "OPENAI_BASE_URL": told.base_url,
        "OPENAI_API_BASE": told.base_url,
        # Clients insist on some key: without one the customary placeholder is given.
        "OPENAI_API_KEY": told.key or "EMPTY",
        "MSCLI_ROOT_URL": told.root,
        "MSCLI_MODEL": told.model,
        "MSCLI_CONTEXT": str(told.context),
        "MSCLI_MAX_OUTPUT": str(told.output),
        "MSCLI_ABILITIES": " ".join(told.abilities),
        **({"OLLAMA_HOST": told.root} if told.engine == "ollama" else {}),
        **({"MSCLI_SYSTEM_PROMPT": record.system_prompt} if record.system_prompt else {}),
    }
