"""`mscli env`: what OpenAI clients need to know, for `eval`."""

from __future__ import annotations

import shlex

import typer

from mscli.cli.options import Instance, Json
from mscli.cli.screen import open_screen


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("env", epilog='Example: eval "$(mscli env)"')(env)


def env(ctx: typer.Context, name: Instance = None, json: Json = False) -> None:
    """Print an instance's URL, key and model as shell exports.

    MSCLI_SYSTEM_PROMPT is set where the model card recommends a system prompt (Magistral reasons because of it).
    """
    from mscli.instances.records import Records, api_key, must_run, the_one
    from mscli.paths import places

    screen = open_screen(ctx, json)
    record = the_one(Records(places()), name)
    must_run(record)
    # Clients insist on some key: without one the customary placeholder is given.
    values = {
        "OPENAI_BASE_URL": record.base_url,
        "OPENAI_API_KEY": api_key(record) or "EMPTY",
        "MSCLI_MODEL": record.alias,
        **({"MSCLI_SYSTEM_PROMPT": record.system_prompt} if record.system_prompt else {}),
    }
    if json:
        screen.data(values)
    else:
        if record.plan.engine == "ollama":
            from mscli.engines.ollama.flags import for_clients  # the table of engines would cost more than all the rest

            if told := for_clients(record.sampling):
                screen.note(f"note: {told}")
        screen.text("\n".join(f"export {key}={shlex.quote(value)}" for key, value in values.items()))
