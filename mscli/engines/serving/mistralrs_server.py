"""`python mistralrs_server.py FLAGS`: mistral.rs for the gateway, where only its Python wheel is installed.

The wheel brings the engine (`Runner`) and neither a server nor a command. The program `mistralrs serve` is used instead
of this wherever there is one.
"""

from __future__ import annotations

import json
import threading
from argparse import Namespace
from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mscli.engines.serving.chat_request import Body, RequestError, role
    from mscli.engines.serving.worker import Delta, flags, run, say
else:  # beside this file, where there is no mscli
    from chat_request import Body, RequestError, role
    from worker import Delta, flags, run, say

# Settings of a request that mean the same in the wheel, under the same names.
SETTINGS = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")


class Served:
    """A loaded model."""

    formats: Collection[str] = ("text", "json_schema")

    def __init__(self, options: Namespace) -> None:
        import mistralrs

        self._options = options
        self._library: Any = mistralrs
        self._runner: Any = mistralrs.Runner(
            which=_which(mistralrs, options),
            max_seqs=options.users,
            in_situ_quant=options.isq,
            jinja_explicit=str(options.chat_template) if options.chat_template else None,
            **({"memory_goal": f"{options.kv_tokens}tokens"} if options.kv_tokens else {}),
        )
        self._sending = threading.Lock()  # two at once are "Already borrowed" to the wheel
        say("model loaded")

    def reply(self, request: Body) -> Generator[Delta, None, None]:
        """See `worker.Model`."""
        try:
            asked = self._request(request)
            with self._sending:
                steps = self._runner.send_chat_completion_request(asked)
            yield from self._deltas(steps)
        except (ValueError, TypeError, OverflowError) as fault:
            raise RequestError(str(fault)) from fault

    def _deltas(self, steps: Any) -> Iterator[Delta]:
        for step in steps:
            choice = step.choices[0]
            usage = step.usage
            yield Delta(
                content=choice.delta.content or "",
                reasoning=choice.delta.reasoning_content or "",
                calls=tuple(_call(call) for call in choice.delta.tool_calls or ()),
                finish=choice.finish_reason,
                prompt_tokens=usage.prompt_tokens if usage else None,
                completion_tokens=usage.completion_tokens if usage else None,
            )

    def _request(self, request: Body) -> Any:
        """The checked request in the wheel's own type."""
        tools = request.get("tools") if request.get("tool_choice") != "none" else None
        stop = request.get("stop")
        defaults = {"temperature": self._options.temperature, "top_p": self._options.top_p}
        asked = {**defaults, "max_tokens": request.get("max_completion_tokens") or self._options.context}
        asked |= {key: request[key] for key in SETTINGS if request.get(key) is not None}
        return self._library.ChatCompletionRequest(
            model=self._options.model,
            messages=[_message(each) for each in request["messages"]],
            stream=True,
            stop_seqs=[stop] if isinstance(stop, str) else stop,
            tool_schemas=[json.dumps(tool) for tool in tools] if tools else None,
            tool_choice=self._library.ToolChoice.Auto if tools else None,
            **_grammar(request.get("response_format") or {}),
            **asked,
        )


def _which(library: Any, options: Namespace) -> Any:
    """The loader: for images where the model's config has a vision encoder. mistral.rs tells the rest by itself."""
    config = json.loads((Path(options.model) / "config.json").read_text())
    if "vision_config" in config:
        return library.Which.MultimodalPlain(
            model_id=options.model, arch=library.MultimodalArchitecture.Mistral3
        )  # fmt: skip
    return library.Which.Plain(model_id=options.model)


def _grammar(form: Mapping[str, Any]) -> dict[str, str]:
    """What holds the reply to a schema."""
    if form.get("type") != "json_schema":
        return {}
    return {"grammar_type": "json_schema", "grammar": json.dumps(form["json_schema"]["schema"])}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without nulls, which the wheel takes for text, and with its texts as one where there is no image: the
    wheel takes a list for an image's, and refuses it in any role but the user's. They are joined as templates do it."""
    content = message.get("content") or ""
    if isinstance(content, list) and all(part["type"] == "text" for part in content):
        content = "\n\n".join(part["text"] for part in content if part["text"])
    return {
        **{key: value for key, value in message.items() if value is not None},
        "role": role(message),
        "content": content,
    }


def _call(call: Any) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id, "type": "function", "function": function}


def main() -> None:
    """The whole life of the process."""
    parser = flags("mistralrs_server")
    parser.add_argument("--isq", help="how weights are quantized while loading: q4k, q8_0 ...")
    parser.add_argument("--kv-tokens", type=int, help="tokens of KV cache to reserve in GPU memory")
    options = parser.parse_args()
    run(options, lambda: Served(options))


if __name__ == "__main__":
    main()
