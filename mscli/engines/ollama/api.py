"""The part of an Ollama server's HTTP API that mscli uses; pulling is in mscli.engines.ollama.pull."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

from mscli.engines.engine import HeldModel
from mscli.engines.ollama.flags import Parameter
from mscli.frozen import frozen
from mscli.http import Answer, HttpFault, Limits, request

ANSWER_TIMEOUT_S = 30.0
# Reads the model's header, and on some versions its whole file.
CREATE_TIMEOUT_S = 600.0
# The server itself gives up a load without progress after five minutes (OLLAMA_LOAD_TIMEOUT); this is for its disk.
LOAD_TIMEOUT_S = 1800.0


class Refusal(Exception):
    """The server's own words for what it would not do. `status`: HTTP's, None where it was not reached at all."""

    def __init__(self, status: int | None, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


@frozen
class Loaded:
    """A model in memory. `context` None: servers before 0.11 do not tell it."""

    size_bytes: int
    gpu_bytes: int
    context: int | None


@frozen
class Api:
    """One server. Every call raises Refusal, and waits at most ANSWER_TIMEOUT_S where nothing else is said."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The server's root."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def direct(self) -> bool:
        """True where no proxy belongs in between, whatever HTTP_PROXY says."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def version(self, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """The version of the server that runs. Refusal also when something else answers there."""
        version = self._ask("GET", "/api/version", None, timeout_s).get("version")
        if not isinstance(version, str):
            raise Refusal(None, f"{self.url} responds, but not like Ollama")
        return version

    def create(self, name: str, source: str, parameters: Mapping[str, Parameter], system: str | None) -> None:
        """Make `name` from the model `source`: the same bytes, with parameters and a system prompt of its own.

        Waits at most CREATE_TIMEOUT_S.
        """
        body = {"model": name, "from": source, "parameters": dict(parameters), "stream": False}
        self._ask("POST", "/api/create", {**body, "system": system} if system else body, CREATE_TIMEOUT_S)

    def derives(self) -> bool:
        """Whether the server makes a model from another by name; before 0.5.5 it read a Modelfile. Asks for a model
        from nothing, which every version refuses, in other words; True where the server tells nothing."""
        try:
            self._ask("POST", "/api/create", {"model": "mscli/nothing", "stream": False})
        except Refusal as refusal:
            return "modelfile" not in refusal.words.lower()
        return True

    def load(self, name: str, keep_alive: Parameter) -> None:
        """Load the model, and keep it as long as `keep_alive` says. Waits at most LOAD_TIMEOUT_S."""
        self._ask("POST", "/api/generate", _without_prompt(name, keep_alive), LOAD_TIMEOUT_S)

    def unload(self, name: str) -> None:
        """Take the model out of memory."""
        self._ask("POST", "/api/generate", _without_prompt(name, 0))

    def delete(self, name: str) -> None:
        """Remove the model; blobs that other models share stay."""
        self._ask("DELETE", "/api/delete", {"model": name})

    def blob(self, name: str) -> str | None:
        """The file that holds the weights of a model, which is what the server keys its memory by; None: not told."""
        modelfile = str(self._ask("POST", "/api/show", {"model": name}).get("modelfile") or "")
        lines = (line.split(maxsplit=1) for line in modelfile.splitlines())
        return next((words[1] for words in lines if len(words) == 2 and words[0] == "FROM"), None)

    def held(self) -> tuple[HeldModel, ...]:
        """The models on the server's disk. Models of the same blobs count them each."""
        return tuple(HeldModel(str(entry.get("name")), int(entry.get("size") or 0)) for entry in self._tags())

    def lists_abilities(self) -> bool | None:
        """Whether the list of models says what each can do, as it does since 0.30; None where there is no model."""
        return next(("capabilities" in entry for entry in self._tags()), None)

    def loaded(self, name: str) -> Loaded | None:
        """How the model sits in memory, None if it does not."""
        wanted = (name.lower(), f"{name.lower()}:latest")
        return next((held for model, held in self.in_memory().items() if model.lower() in wanted), None)

    def in_memory(self) -> dict[str, Loaded]:
        """Every model in memory, by name."""
        entries = self._ask("GET", "/api/ps").get("models") or ()
        return {
            str(entry.get("model")): Loaded(
                entry.get("size") or 0, entry.get("size_vram") or 0, entry.get("context_length")
            )
            for entry in entries
        }

    def _tags(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/api/tags").get("models") or ())

    def _ask(
        self, method: str, path: str, body: Mapping[str, object] | None = None, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> dict[str, Any]:
        limits = Limits(min(timeout_s, 5.0), timeout_s, timeout_s, redirects=0)
        sent = None if body is None else json.dumps(body).encode()
        headers = {} if sent is None else {"Content-Type": "application/json"}
        try:
            answer = request(
                self.url + path, method=method, headers=headers, body=sent, limits=limits, direct=self.direct
            )
            said = answer.json() if answer.body else {}
        except HttpFault as fault:
            raise Refusal(None, f"{self.url} does not answer ({fault.seen})") from fault
        except ValueError as fault:
            raise self._no_json(answer, path) from fault
        told = said.get("error") if isinstance(said, dict) else None
        if answer.status == HTTPStatus.FORBIDDEN and not told:
            # bound to loopback it answers to addresses and local names alone, with an empty page
            raise Refusal(answer.status, f"it rejects the host name {self.host} (HTTP 403): use its IP address")
        if answer.status != HTTPStatus.OK or told:
            raise Refusal(answer.status, str(told or f"HTTP {answer.status}"))
        return said if isinstance(said, dict) else {}

    def _no_json(self, answer: Answer, path: str) -> Refusal:
        """A text page: what Ollama answers for a path that its version does not have, or a server of another kind."""
        if answer.status == HTTPStatus.NOT_FOUND and answer.body.startswith(b"404 page not found"):
            return Refusal(HTTPStatus.NOT_IMPLEMENTED, f"this version of Ollama has no {path}")
        return Refusal(None, f"{self.url} responds, but not like Ollama")


def _without_prompt(name: str, keep_alive: Parameter) -> dict[str, object]:
    """A request to generate without a prompt, which loads the model, or unloads it with a keep_alive of 0."""
    return {"model": name, "keep_alive": keep_alive, "stream": False}
