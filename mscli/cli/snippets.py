"""First lines of code for an instance, by client. The key is never in them: it is read from OPENAI_API_KEY."""

from __future__ import annotations

import json
import shlex
from string import Template

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
