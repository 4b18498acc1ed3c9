"""`python transformers_server.py FLAGS`: a model of Mistral's on Hugging Face Transformers behind OpenAI's API.

In place of `transformers serve`, which cannot be told the model's name, a key or a context, does not read Mistral's
calls of tools, and answers an image with an error. Runs in the environment that holds torch and transformers.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import queue
import threading
from argparse import Namespace
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mscli.engines.serving.mistral_output import ARGS, CALLS, CONTENT, REASONING, Reader
    from mscli.engines.serving.openai_http import Body, Delta, RequestError, flags, run, say
else:  # beside this file, where there is no mscli
    from mistral_output import ARGS, CALLS, CONTENT, REASONING, Reader
    from openai_http import Body, Delta, RequestError, flags, run, say

# Left in 16 bits when the rest is quantised: the planner counts them so, and the image tower suffers most from it.
# Names count from the start up to a dot; newer versions put all but the head below `model`.
UNQUANTISED = tuple(f"{above}{name}" for above in ("", "model.") for name in ("vision_tower", "multi_modal_projector"))
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Tokens:
    """What `generate` hands its tokens to: the first put is the prompt; None in the queue is the end."""

    def __init__(self) -> None:
        self.queue: queue.Queue[list[int] | None] = queue.Queue()
        self._prompt_seen = False

    def put(self, ids: Any) -> None:
        """Called by `generate`."""
        if self._prompt_seen:
            self.queue.put(ids.reshape(-1).tolist())
        self._prompt_seen = True

    def end(self) -> None:
        """Called by `generate`."""


class Served:
    """A loaded model with its tokenizer, or the processor that holds one where it sees images."""

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self._model = _model(options)
        self._processor: Any = _processor(options, self._model)
        self._tokenizer: Any = getattr(self._processor, "tokenizer", self._processor)
        self._template = _template(self._processor, options.chat_template)
        self._workers = ThreadPoolExecutor(options.users, "generate")
        say(_placement(self._model))
        for _ in self._generate(self._tokenizer("warm-up", return_tensors="pt"), {"max_new_tokens": 1}):
            pass  # kernels that this GPU cannot run fail here, before anybody asks

    def reply(self, request: Body) -> Generator[Delta, None, None]:
        """See `openai_http.Model`."""
        inputs = self._inputs(request)
        prompt = int(inputs["input_ids"].shape[-1])
        room = self._options.context - prompt
        if room <= 0:
            raise RequestError(
                f"the context is {self._options.context} tokens, and the prompt alone has {prompt}: shorten it, or "
                "start with a longer context"
            )
        asked = request.get("max_completion_tokens") or request.get("max_tokens") or room
        limit = min(int(asked), room)
        reader, made = Reader(_stops(request)), 0
        with closing(self._generate(inputs, {**self._sampling(request), "max_new_tokens": limit})) as steps:
            for number, text in self._texts(steps):
                made += number
                yield from map(_delta, reader.feed(text))
                if reader.stopped:
                    break
        yield from map(_delta, reader.end())
        calls = tuple(reader.calls())
        finish = "tool_calls" if calls else "stop" if reader.stopped or made < limit else "length"
        yield Delta(calls=calls, finish=finish, prompt_tokens=prompt, completion_tokens=made)

    def _texts(self, steps: Iterable[list[int]]) -> Iterator[tuple[int, str]]:
        """Each step's number of tokens and their text, "" while a character is not whole."""
        pending: list[int] = []
        for ids in steps:
            pending += ids
            text = self._tokenizer.decode(pending, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if text.endswith(UNFINISHED):
                yield len(ids), ""
            else:
                pending = []
                yield len(ids), text

    def _inputs(self, request: Body) -> Any:
        """The prompt as tensors. Raises RequestError for messages that the template or this server cannot take."""
        images: list[Any] = []
        messages = [_message(each, images) for each in _messages(request)]
        if len(images) > self._options.images:
            raise RequestError(f"{len(images)} images were sent, and the plan is for {self._options.images}")
        tools = None if request.get("tool_choice") == "none" else request.get("tools") or None
        from jinja2 import TemplateError

        try:
            prompt = self._tokenizer.apply_chat_template(
                messages,
                tools=tools,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=True,
                args_syntax=ARGS in self._tokenizer.get_vocab(),
            )
        except (TypeError, ValueError, KeyError, TemplateError) as fault:
            raise RequestError(f"the chat template does not take these messages: {fault}") from fault
        if images:
            return self._processor(text=prompt, images=[images], return_tensors="pt", add_special_tokens=False)
        return self._tokenizer(prompt, return_tensors="pt", add_special_tokens=False)

    def _sampling(self, request: Body) -> dict[str, Any]:
        temperature = request.get("temperature", self._options.temperature)
        if temperature is not None and float(temperature) <= 0:
            return {"do_sample": False}
        wanted = {"temperature": temperature, "top_p": request.get("top_p", self._options.top_p)}
        return {"do_sample": True} | {key: float(value) for key, value in wanted.items() if value is not None}

    def _generate(self, inputs: Any, settings: Mapping[str, Any]) -> Generator[list[int], None, None]:
        """Token ids as they are made, on a thread of their own; closed early, it stops after the token at work.

        Raises what `generate` raised."""
        tokens, stop = Tokens(), threading.Event()

        def work() -> None:
            try:
                self._model.generate(
                    **{name: self._placed(tensor) for name, tensor in inputs.items()},
                    **settings,
                    streamer=tokens,
                    stopping_criteria=_criteria(stop),
                    pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
                )
            finally:
                tokens.queue.put(None)

        done = self._workers.submit(work)
        try:
            while (ids := tokens.queue.get()) is not None:
                yield ids
        finally:
            stop.set()
        done.result()

    def _placed(self, tensor: Any) -> Any:
        """On the model's first device; pixels in the model's own type."""
        if not hasattr(tensor, "to"):
            return tensor
        moved = tensor.to(self._model.device)
        return moved.to(self._model.dtype) if moved.is_floating_point() else moved


def _model(options: Namespace) -> Any:
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(options.model)
    sees = getattr(config, "vision_config", None) is not None
    kind = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    quantised = _quantisation(options)
    say(f"loading {kind.__name__}, {options.quantization or 'bfloat16'}, on {options.device}")
    model = kind.from_pretrained(
        options.model,
        dtype=torch.bfloat16,
        device_map="auto" if options.device == "auto" else {"": options.device},
        **({"quantization_config": quantised} if quantised else {}),
    )
    return model.eval()


def _quantisation(options: Namespace) -> Any:
    """What `load_in_4bit=True` was in older versions; None for 16 bits."""
    import torch
    from transformers import BitsAndBytesConfig

    if options.quantization == "bnb-4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=["lm_head", *UNQUANTISED],
        )
    if options.quantization == "bnb-8bit":
        # It says with every product that it computes in 16 bits of another kind.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_skip_modules=["lm_head", *UNQUANTISED],
            llm_int8_enable_fp32_cpu_offload=options.device == "auto",
        )
    return None


def _processor(options: Namespace, model: Any) -> Any:
    """The processor for images where they are planned and the model sees, else the tokenizer alone."""
    import transformers

    sees = getattr(model.config, "vision_config", None) is not None
    kind = transformers.AutoProcessor if sees and options.images else transformers.AutoTokenizer
    return kind.from_pretrained(options.model)


def _template(processor: Any, ours: Path | None) -> str | None:
    """The model's own chat template (None) if it knows tools, else the one given: that of Small 3.1 does not."""
    tokenizer = getattr(processor, "tokenizer", processor)
    own = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if isinstance(own, str) and ("tools" in own or ours is None):
        return own
    return ours.read_text() if ours else None


def _criteria(stop: threading.Event) -> Any:
    from transformers import StoppingCriteriaList

    return StoppingCriteriaList([lambda *_, **__: stop.is_set()])


def _placement(model: Any) -> str:
    """How many bytes of the weights lie on which device, for the log."""
    held: dict[str, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        held[str(tensor.device)] = held.get(str(tensor.device), 0) + tensor.numel() * tensor.element_size()
    return f"placed weights: {json.dumps(held)}"


def _messages(request: Body) -> list[Mapping[str, Any]]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise RequestError("`messages` must be a list of at least one message")
    if request.get("tool_choice") not in (None, "auto", "none"):
        raise RequestError("`tool_choice` can be auto or none on this engine")
    return messages


def _message(message: Mapping[str, Any], images: list[Any]) -> dict[str, Any]:
    """A message as chat templates expect it: no null content, arguments as objects. Its pictures go to `images`."""
    changed = {**message, "content": message.get("content") or ""}
    if isinstance(changed["content"], list):
        changed["content"] = [_block(block, images) for block in changed["content"]]
    if calls := message.get("tool_calls"):
        changed["tool_calls"] = [_call(call) for call in calls]
    return changed


def _block(block: Mapping[str, Any], images: list[Any]) -> dict[str, Any]:
    if block.get("type") == "image_url":
        images.append(_picture(block))
        return {"type": "image"}
    return dict(block)


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError):
        arguments = function.get("arguments")
    return {**call, "function": {**function, "arguments": arguments}}


def _picture(block: Mapping[str, Any]) -> Any:
    """The picture in a data URL. Others are refused: whoever may ask must not make this machine fetch things."""
    import PIL.Image

    link = block.get("image_url")
    url = str(link.get("url") if isinstance(link, dict) else link)
    if not url.startswith("data:"):
        raise RequestError("send pictures inside the request, as data URLs (data:image/png;base64,...)")
    try:
        return PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    except (ValueError, OSError) as fault:
        raise RequestError(f"a picture cannot be read: {fault}") from None


def _stops(request: Body) -> tuple[str, ...]:
    stop = request.get("stop") or ()
    return (stop,) if isinstance(stop, str) else tuple(map(str, stop))


def _delta(part: tuple[str, str]) -> Delta:
    kind, text = part
    assert kind in (CONTENT, REASONING), f"{CALLS} are given at the end"
    return Delta(content=text) if kind == CONTENT else Delta(reasoning=text)


def main() -> None:
    """The whole life of the process."""
    parser = flags("transformers_server")
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--quantization", choices=("bnb-4bit", "bnb-8bit"))
    parser.add_argument("--device", default="auto", help="auto spreads over all GPUs; else cpu or cuda:0")
    options = parser.parse_args()
    run(options, lambda: Served(options))


if __name__ == "__main__":
    main()
