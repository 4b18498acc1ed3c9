"""`mscli env`: what clients need to know, as shell exports or as code to begin with.

The key is never in that code: it is read from OPENAI_API_KEY.
"""

from __future__ import annotations

import json
import shlex
from string import Template
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.options import Instance, Json
from mscli.cli.screen import open_screen
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
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
    if client is not None and client not in SNIPPETS:
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
