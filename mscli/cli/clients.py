"""`mscli env`: what clients need to know, as shell exports or as code to begin with; `mscli launch`: a coding agent,
connected to a running instance.

The key is never in that code: it is read from OPENAI_API_KEY.
"""

from __future__ import annotations

import json
import os
import shlex
from string import Template
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.layout import Column
from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import Commands, Instance, Json
from mscli.errors import Code, MscliError
from mscli.frozen import replace
from mscli.paths import on_path

if TYPE_CHECKING:
    from mscli.agents.launch import Launch
    from mscli.agents.table import Agent, Deployment
    from mscli.instances.records import Record

_BODY = """{"model": $model, "temperature": $temperature, "messages": [{"role": "user", "content": "Hello"}]}"""
SNIPPETS = {
    "curl": """\
curl -s $chat -H "Content-Type: application/json" -H "Authorization: Bearer $${OPENAI_API_KEY:-EMPTY}" \\
  -d $body
""",
    "python": """\
import os
from openai import OpenAI  # pip install openai

client = OpenAI(base_url=$url, api_key=os.environ.get("OPENAI_API_KEY", "EMPTY"))
messages = [{"role": "user", "content": "Hello"}]
reply = client.chat.completions.create(model=$model, messages=messages, temperature=$temperature)
print(reply.choices[0].message.content)
""",
    "js": """\
import OpenAI from "openai"; // npm install openai

const client = new OpenAI({ baseURL: $url, apiKey: process.env.OPENAI_API_KEY ?? "EMPTY" });
const messages = [{ role: "user", content: "Hello" }];
const reply = await client.chat.completions.create({ model: $model, messages, temperature: $temperature });
console.log(reply.choices[0].message.content);
""",
    "langchain": """\
import os
from langchain_openai import ChatOpenAI  # pip install langchain-openai

key = os.environ.get("OPENAI_API_KEY", "EMPTY")
chat = ChatOpenAI(base_url=$url, api_key=key, model=$model, temperature=$temperature)
print(chat.invoke("Hello").content)
""",
    "litellm": """\
import os
from litellm import completion  # pip install litellm

reply = completion(
    model="openai/" + $model, api_base=$url, api_key=os.environ.get("OPENAI_API_KEY", "EMPTY"),
    messages=[{"role": "user", "content": "Hello"}], temperature=$temperature,
)
print(reply.choices[0].message.content)
""",
    "pydantic-ai": """\
import os
from pydantic_ai import Agent  # pip install 'pydantic-ai-slim[openai]'
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=$url, api_key=os.environ.get("OPENAI_API_KEY", "EMPTY"))
agent = Agent(OpenAIChatModel($model, provider=provider), model_settings={"temperature": $temperature})
print(agent.run_sync("Hello").output)
""",
    "llm": """\
# pip install llm; a folder of its own, so that yours stays as it is
export LLM_USER_PATH="$$(mktemp -d)"
cat > "$$LLM_USER_PATH/extra-openai-models.yaml" << 'END'
[{"model_id": "mscli", "model_name": $model, "api_base": $url, "api_key_name": "mscli"}]
END
OPENAI_API_KEY="$${OPENAI_API_KEY:-EMPTY}" llm -m mscli -o temperature $temperature "Hello"
""",
}


def snippet(client: str, base_url: str, model: str, temperature: float | None) -> str:
    """Code for one of SNIPPETS that sends a first message; `temperature`: 0 where the model's makers recommend none."""
    values = {"url": json.dumps(base_url), "model": json.dumps(model), "temperature": json.dumps(temperature or 0.0)}
    body = Template(_BODY).substitute(values)
    shell = {"chat": shlex.quote(f"{base_url}/chat/completions"), "body": shlex.quote(body)}
    return Template(SNIPPETS[client]).substitute(values, **shell)


_FOR = "Print code for curl, python, js, llm and others."


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
    if client is not None and client not in SNIPPETS:
        raise MscliError(Code.USAGE, f"no code for {client!r}", f"Name one of {', '.join(SNIPPETS)}.")
    record = the_one(Records(places()), name, "mscli env")
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
    from mscli.agents.table import deployment_of

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


ARG = "--arg"
"""What each word after `--` becomes: without it, the first would be taken for the instance."""
_AGENT = "The agent; without it, list the agents."
_ARGS = "Pass this argument to the agent (or put it after --)."
_EPILOG = "Examples: mscli launch  |  mscli launch vibe  |  mscli launch codex small-q4 --print"
_PRINT = "Print the command that would run; start nothing."
_COLUMNS = (Column("AGENT"), Column("NAME", 2), Column("MIN CTX", 1, right=True), Column("INSTALLED WITH"))


def start(
    ctx: typer.Context,
    agent: Annotated[str | None, typer.Argument(metavar="[AGENT]", help=_AGENT)] = None,
    name: Instance = None,
    args: Annotated[list[str] | None, typer.Option(ARG, metavar="ARG", help=_ARGS)] = None,
    show: Annotated[bool, typer.Option("--print", help=_PRINT)] = False,
    json: Json = False,
) -> None:
    """Start a coding agent on a running instance.

    Arguments after -- go to the agent. Your own configuration of it is not changed: the address, model and context are
    passed in its environment, its flags, or a file in the instance's folder. --json implies --print.
    """
    from mscli.agents.launch import last, launch, refuse_unfit, warnings
    from mscli.agents.table import agents, deployment_of
    from mscli.instances.records import Records, the_one
    from mscli.paths import places

    screen = open_screen(ctx, json)
    if agent is None:
        _list(screen)
        return
    if agent not in agents():
        raise MscliError(Code.USAGE, f"there is no agent {agent!r}", f"One of: {', '.join(agents())}")
    chosen, records = agents()[agent], Records(places())
    record = the_one(records, name, f"mscli launch {agent}")
    deployment = deployment_of(record)
    refuse_unfit(chosen, deployment)
    _refuse_small(chosen, deployment, record)
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    made = launch(chosen, deployment, records.run_dir(record.name) / "agents" / agent, args or (), exempt)
    made.write()
    found = warnings(chosen, deployment, last(record, records))
    if json:
        screen.data({"argv": made.argv, "env": made.env, "unset": made.unset, "files": list(made.files),
                     "warnings": found})  # fmt: skip
        return
    for warning in found:
        screen.note(f"warning: {warning}. To check again: mscli check --for agents {record.name}", "yellow")
    if show:
        screen.text(_printed(made))
    else:
        if not chosen.tried:
            screen.note(f"note: {chosen.title} has not been tested with mscli", "yellow")
        _run(chosen, made)


def _list(screen: Screen) -> None:
    """Every agent, and whether it is here."""
    from mscli.agents.table import agents

    if screen.json_mode:
        known = {
            name: {"title": agent.title, "least_context": agent.least_context, "install": agent.install,
                   "path": on_path(agent.program)}
            for name, agent in agents().items()
        }  # fmt: skip
        screen.data({"agents": known})
        return
    rows = [
        (
            name,
            agent.title,
            f"{agent.least_context:,}",
            "(installed)" if on_path(agent.program) else agent.install,
        )
        for name, agent in agents().items()
    ]
    screen.table(_COLUMNS, rows)
    screen.note("To start one on the running instance: mscli launch AGENT")


def _refuse_small(agent: Agent, deployment: Deployment, record: Record) -> None:
    """Raise NO_FIT where the agent's first request does not fit the context, with what would."""
    from mscli.agents.launch import needed_context
    from mscli.lifecycle.decision import decide
    from mscli.paths import places

    needed = needed_context(agent, deployment)
    if deployment.context >= needed:
        return
    request = replace(record.request, overrides=replace(record.request.overrides, context=needed))
    way = f"mscli up {record.plan.profile} --ctx {needed} --replace"
    if record.name != record.plan.profile:
        way += f" --name {record.name}"
    try:
        decide(request, places(), record.name)
        hint = f"A larger context fits here: {way}"
    except MscliError as fault:
        hint = f"That context does not fit {record.plan.profile} here ({fault.message}). To see what does: mscli plan"
    raise MscliError(
        Code.NO_FIT,
        f"{agent.title} needs a context of {needed:,} tokens; {record.name} has {deployment.context:,}",
        hint,
        {"needed": needed, "context": deployment.context},
    )


def _printed(made: Launch) -> str:
    unset = [f"-u {name}" for name in made.unset]
    env = [f"{name}={shlex.quote(value)}" for name, value in made.env.items()]
    return " \\\n  ".join(["env", *unset, *env, shlex.join(made.argv)])


def _run(agent: Agent, made: Launch) -> None:
    """Become the agent: its terminal, its signals and its exit status are the user's."""
    program = on_path(agent.program)
    if program is None:
        raise MscliError(Code.AGENT_MISSING, f"{agent.title} is not installed", f"Install it: {agent.install}")
    env = {name: value for name, value in os.environ.items() if name not in made.unset}
    os.execve(program, made.argv, {**env, **made.env})


COMMANDS: Commands = {
    "env": (env, 'Examples: eval "$(mscli env)"  |  mscli env --for curl'),
    "launch": (start, _EPILOG),
}
