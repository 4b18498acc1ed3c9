"""`python transformers_server.py FLAGS`: a model of Mistral's on Hugging Face Transformers, for the gateway.

In place of `transformers serve`, which cannot be told the model's name, a key or a context, does not read Mistral's
calls of tools, and answers an image with an error. Runs in the environment that holds torch and transformers.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from argparse import Namespace
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mscli.engines.serving.chat_request import Body, RequestError
    from mscli.engines.serving.mistral_format import CALLS, CONTENT, REASONING, Reader, prompts
    from mscli.engines.serving.worker import EMPTY, Delta, flags, run, say
else:  # beside this file, where there is no mscli
    from chat_request import Body, RequestError
    from mistral_format import CALLS, CONTENT, REASONING, Reader, prompts
    from worker import EMPTY, Delta, flags, run, say

# Left in 16 bits when the rest is quantised: the planner counts them so, and the vision encoder suffers most from it.
# Names count from the start up to a dot; newer versions put all but the head below `model`.
UNQUANTISED = tuple(f"{above}{name}" for above in ("", "model.") for name in ("vision_tower", "multi_modal_projector"))
WARM_UP: Body = {"messages": [{"role": "user", "content": "warm-up"}]}
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
    """A loaded model with what makes its prompts."""

    formats: Collection[str] = ("text",)

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self._model = _model(options)
        self._prompts = prompts(options, _sees(self._model.config))
        self._tokenizer = self._prompts.tokenizer
        self._workers = ThreadPoolExecutor(options.users, "generate")
        say(_placement(self._model))
        for _ in self._generate(self._prompts.inputs(WARM_UP), {"max_new_tokens": 1}):
            pass  # kernels that this GPU cannot run fail here, before anybody asks

    def reply(self, request: Body) -> Generator[Delta, None, None]:
        """See `worker.Model`."""
        inputs = self._prompts.inputs(request)
        prompt = int(inputs["input_ids"].shape[-1])
        room = self._options.context - prompt
        if room <= 0:
            raise RequestError(
                f"the context is {self._options.context} tokens, and the prompt alone has {prompt}: shorten it, or "
                "start with a longer context",
                code="context_length_exceeded",
            )
        asked = request.get("max_completion_tokens") or request.get("max_tokens") or room
        limit = min(int(asked), room)
        reader, made = Reader(_stops(request)), 0
        with closing(self._generate(inputs, {**self._sampling(request), "max_new_tokens": limit})) as steps:
            for number, text in self._texts(steps):
                made += number
                yield from map(_delta, reader.feed(text))
                yield EMPTY
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
            text = self._tokenizer.decode(pending, skip_special_tokens=False)
            if text.endswith(UNFINISHED):
                yield len(ids), ""
            else:
                pending = []
                yield len(ids), text

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
                    **{name: self._placed(tensor) for name, tensor in inputs.items() if name != "token_type_ids"},
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
    kind = transformers.AutoModelForImageTextToText if _sees(config) else transformers.AutoModelForCausalLM
    quantised = _quantisation(options)
    say(f"loading {kind.__name__}, {options.quantization or 'bfloat16'}, on {options.device}")
    model = kind.from_pretrained(
        options.model,
        dtype=torch.bfloat16,
        device_map="auto" if options.device == "auto" else {"": options.device},
        **({"quantization_config": quantised} if quantised else {}),
    )
    return model.eval()


def _sees(config: Any) -> bool:
    return getattr(config, "vision_config", None) is not None


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
            llm_int8_enable_fp32_cpu_offload=options.offload,
        )
    if options.quantization == "bnb-8bit":
        # It says with every product that it computes in 16 bits of another kind.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_skip_modules=["lm_head", *UNQUANTISED],
            llm_int8_enable_fp32_cpu_offload=options.offload,
        )
    return None


def _criteria(stop: threading.Event) -> Any:
    from transformers import StoppingCriteriaList

    return StoppingCriteriaList([lambda *_, **__: stop.is_set()])


def _placement(model: Any) -> str:
    """How many bytes of the weights lie on which device, for the log."""
    held: dict[str, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        held[str(tensor.device)] = held.get(str(tensor.device), 0) + tensor.numel() * tensor.element_size()
    return f"placed weights: {json.dumps(held)}"


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
    parser.add_argument("--quantization", choices=("bnb-4bit", "bnb-8bit"))
    parser.add_argument("--offload", action="store_true", help="quantised layers may lie in host memory, knowingly")
    parser.add_argument("--device", default="auto", help="auto spreads over all GPUs; else cpu or cuda:0")
    options = parser.parse_args()
    run(options, lambda: Served(options))


if __name__ == "__main__":
    main()
