"""A model that is only a Python object, as the gateway's engine: the process in that library's own environment.

It answers over the socket that is its standard input, one line of JSON per message. From the gateway: {"id", "request"}
and {"id", "left": true} when the client has gone. To the gateway: {"ready": [formats]} once, and per request any number
of {"id", "step"}, then {"id", "end": true} or {"id", "fault": words, "status", "code"}. The standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING or __package__:
    from mscli.engines.serving.chat_request import Body, RequestError
else:  # beside this file, where there is no mscli
    from chat_request import Body, RequestError

# What a library raises where it cannot go on with one request: memory, shapes, numbers. The process lives on.
FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Delta:
    """A step of a reply. `calls`: calls of tools as OpenAI's API words them. The last step has `finish` (stop, length
    or tool_calls) and the numbers of tokens."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[Mapping[str, Any], ...] = ()
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


EMPTY = Delta()


class Model(Protocol):
    """What answers. `formats`: the types of `response_format` that it honors."""

    formats: Collection[str]

    def reply(self, request: Body) -> Generator[Delta, None, None]:
        """The steps of the reply to a checked chat completion request; closed early, it stops computing. A step may be
        empty: between two steps it is seen whether the client is still there. Raises RequestError before the first."""


def say(text: str) -> None:
    """A line of the instance's log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def flags(name: str) -> ArgumentParser:
    """The flags of every such program. Sizes in tokens; `--users`: how many requests may compute at once;
    `--images`: how many one request may hold."""
    parser = ArgumentParser(prog=name, allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--users", type=int, default=1)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--chat-template", type=Path)
    return parser


def run(options: Namespace, load: Callable[[], Model]) -> None:
    """Load, then answer until the gateway is gone."""
    heard, told = (os.fdopen(os.dup(0), mode) for mode in ("rb", "wb"))
    say(f"loading {options.model}")
    worker = Worker(heard, told, load())
    say(f"ready: {options.alias}, context={options.context}")
    worker.serve()
    os._exit(0)  # a thread may still compute for a gateway that is gone


class Worker:
    """One thread per request; the gateway sends no more at once than are to compute at once."""

    def __init__(self, heard: BinaryIO, told: BinaryIO, model: Model) -> None:
        self._heard, self._told, self._model = heard, told, model
        self._sending, self._left = threading.Lock(), dict[int, threading.Event]()

    def serve(self) -> None:
        """Until the gateway closes the connection."""
        self._send({"ready": list(self._model.formats)})
        for line in self._heard:
            message = json.loads(line)
            number = message["id"]
            if "request" in message:
                self._left[number] = threading.Event()
                threading.Thread(target=self._answer, args=(number, message["request"]), daemon=True).start()
            elif number in self._left:
                self._left[number].set()

    def _answer(self, number: int, request: Body) -> None:
        end: dict[str, Any] = {"fault": "the model could not answer", "status": 500}
        try:
            self._steps(number, request)
            end = {"end": True}
        except RequestError as fault:
            end = {"fault": str(fault), "status": fault.status, "code": fault.code}
        except RecursionError as fault:
            end = {"fault": str(fault), "status": 400}
        except FAULTS as fault:
            say(f"error: {type(fault).__name__}: {fault}")
            end = {"fault": f"the model could not answer: {fault}", "status": 500}
        finally:  # also of what nobody expected, which ends the thread: a client would wait for ever
            if unexpected := sys.exc_info()[1]:
                end["fault"] += f": {unexpected!r}"
            del self._left[number]
            self._send({"id": number, **end})

    def _steps(self, number: int, request: Body) -> None:
        left = self._left[number]
        with closing(self._model.reply(request)) as steps:
            for step in steps:
                if left.is_set():
                    say("the client has gone: stopped")
                    return
                if step != EMPTY:
                    self._send({"id": number, "step": asdict(step)})

    def _send(self, message: Mapping[str, Any]) -> None:
        with self._sending, suppress(ConnectionError):
            self._told.write(json.dumps(message).encode() + b"\n")
            self._told.flush()
