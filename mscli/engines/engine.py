"""The contract of an inference engine: one class in one folder implements it, and the lifecycle knows nothing else.

The calls of a start, in order; those in brackets only where the engine has the ability (a protocol below):

    locate                      the copy that is used                [Hosted: adopt, check: a server that runs already]
    [prepare_image]             Imaged: the container image is here
    command                     as a dry run shows it
    [prepare_start]             Preparing: the engine accepts the flags
    [stored, bare, fetch]       Hosted: the weights; for all others mscli.weights has them here
    command                     what is run, with the weights
    stage, [step]               for each line of its log; `health_path` until it answers 200
    [prepare]                   Hosted: the model is made on the server and loaded; what it took
    observe                     what the log says that it took

An instance that runs: [load] its model again. A stop: [release] on a server that is not ours, else the signals of
`stop_signals` to the process group (or the container), waiting `stop_grace_s` after each, and then SIGKILL. Why a start
failed is not asked of the engine: mscli.diagnosis reads its log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import OptionValue, Profile
from mscli.catalog.sampling import Sampling
from mscli.engines.environment import Contained
from mscli.frozen import field, frozen, replace
from mscli.planning.plan import Plan
from mscli.weights.progress import Listener, WeightFiles

# mscli's own programs that run inside an engine's environment, started by their path.
SERVERS = Path(__file__).parent / "serving"
# Stages of a start, in order, as every engine reports them.
PLAN, WEIGHTS, STARTING, LOADING, READY = "plan", "weights", "starting", "loading", "ready"


@frozen
class Capabilities:
    """What an engine can do with this model family; False is said in `mscli engines`, never hidden.

    `unguarded`: paths that its server answers without the API key, beside health and metrics. `idle_option`: its option
    for the seconds without a request after which it frees the model's memory, until the next request; None: it cannot.
    `gateway`: how the gateway speaks to it (see serving/gateway.py); "library": only the gateway speaks HTTP; None: it
    cannot have one. `answers_agents`: whether it takes what coding agents send, without the gateway.
    """

    vision: bool
    tools: bool
    reasoning: bool
    kv_types: tuple[str, ...]
    multi_gpu: bool
    api_key: bool
    cpu: bool
    unguarded: tuple[str, ...] = ()
    idle_option: str | None = None
    gateway: str | None = "openai"
    answers_agents: bool = True


@frozen
class Installation:
    """One usable copy of an engine. `argv`: how to start it, before any flag. `version` None: unknown.

    `beside`: versions of packages in the same environment that the engine may not get on with, by name. `env`: settings
    of the environment that `argv` was found under and has to be run under. `gpu`, `cpu`: whether this copy can
    run on the one and on the other; None: it does not tell. `cuda`: the major version of the CUDA that its GPU code was
    built with, where it tells; `vulkan`: it has code for Vulkan. `library`: it is no server (see Capabilities)."""

    engine: str
    argv: tuple[str, ...]
    version: str | None
    kind: str
    path: Path
    beside: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    gpu: bool | None = None
    cpu: bool | None = None
    cuda: int | None = None
    vulkan: bool = False
    library: bool = False


@frozen
class Offer:
    """An engine that mscli can install here. `what`: what is fetched, by its name and version; `source`: from where.

    `download_bytes`, `room_bytes`: about what is fetched, and what the disk of `folder` must have until it is in place.
    `addresses`: what it is fetched from.
    """

    engine: str
    what: str
    source: str
    download_bytes: int
    room_bytes: int
    folder: Path
    addresses: tuple[str, ...]


@frozen
class Serving:
    """Where and how the instance serves. `run_dir` is private to it (0700) and holds log, key and temporary files.

    `gateway`: how a gateway at `host` and `port` speaks to the engine; None: there is none, and the engine listens
    there. `engine_port`: the engine's own behind a gateway, on loopback; None for a library.
    """

    name: str
    host: str
    port: int
    alias: str
    run_dir: Path
    log: Path
    api_key_file: Path | None
    gateway: str | None = None
    engine_port: int | None = None

    @property
    def behind(self) -> Serving:
        """Where the engine itself serves."""
        if self.gateway is None:
            return self
        return replace(self, host="127.0.0.1", port=self.engine_port or self.port, api_key_file=None)


@frozen
class Command:
    """What is run, and exactly what `--dry-run` prints. `env` is added to the environment; `files` (path -> text) are
    written 0600 before the start, `links` (path -> what it leads to) are made. No secret ever stands in `argv` or
    `env`: `secrets` are variables whose value is
    read from a file at the spawn, for engines that take a key in no other private way. `contained`: the container that
    it starts, if it does."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    links: Mapping[Path, Path] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    contained: Contained | None = None


@frozen
class Observed:
    """What the engine itself says it took. None: it did not tell. `gpu_layers` (placed, of); `gpu_share` from 0 to 1:
    how much of the model sits in GPU memory, for engines that tell bytes and not layers.

    `kv_tokens`: tokens that the whole KV cache holds; `max_concurrency`: how many requests of full length fit into it.
    `gpu_bytes`: by how much the load filled each GPU, by UUID, as NVML tells. `cpu_reason`: where part of the model is
    on the CPU unasked, why, and what to do, in words."""

    context: int | None = None
    weights_bytes: int | None = None
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    max_concurrency: float | None = None
    compute_bytes: int | None = None
    gpu_layers: tuple[int, int] | None = None
    gpu_share: float | None = None
    gpu_bytes: Mapping[str, int] | None = None
    cpu_reason: str | None = None


class StageListener(Listener, Protocol):
    """Hears of a pull, and which stage of a start begins."""

    def stage(self, stage: str, text: str) -> None:
        """`stage` is one of the stages above; `text` says what is being done."""


class Engine(Protocol):
    """One inference engine. Everything here is pure except `locate`, which looks at this machine."""

    name: str
    program: str  # what it is called on PATH
    capabilities: Capabilities
    health_path: str
    stop_signals: tuple[int, ...]
    stop_grace_s: float

    def locate(self) -> Installation:
        """The copy that would be used. Raises MscliError(ENGINE_MISSING) with the way to get one."""

    def command(
        self, plan: Plan, profile: Profile, model: Model, weights: WeightFiles, serving: Serving, found: Installation
    ) -> Command:
        """The command line that serves `plan`. Raises ENGINE_UNSUPPORTED for what the version found cannot do."""

    def stage(self, line: str) -> str | None:
        """The stage that a log line announces (STARTING, LOADING), or None."""

    def observe(self, log: str) -> Observed:
        """Memory and context as the engine's log states them."""


@runtime_checkable
class Selective(Engine, Protocol):
    """An engine of which several copies can be here, built for different devices."""

    def locate_for(self, device: str) -> Installation:
        """The copy that would be used for a profile on `device` (gpu or cpu).

        Raises ENGINE_MISSING as `locate` does, and where none of the copies has code for a GPU.
        """


@runtime_checkable
class Talkative(Engine, Protocol):
    """An engine that takes minutes to start and tells meanwhile what it does."""

    def step(self, line: str) -> str | None:
        """What a log line says that it does now, for people; None for lines that say nothing of it."""


@runtime_checkable
class Preparing(Engine, Protocol):
    """An engine with more to see to before a start than weights: flags that its own parser must accept, a container
    engine that must answer, an image to fetch."""

    def prepare_start(
        self, command: Command, plan: Plan, profile: Profile, found: Installation, listener: StageListener
    ) -> None:
        """Called after the plan and before any weight is fetched, with the command as a dry run shows it.

        Blocks for what it fetches, and tells `listener` of it. Raises MscliError with details["cause"] for what would
        keep the engine from starting.
        """


@runtime_checkable
class Imaged(Engine, Protocol):
    """An engine that comes as a container image, run by a container engine of this machine."""

    def check_host(self, plan: Plan, profile: Profile, found: Installation, offline: bool) -> None:
        """Raises ENGINE_MISSING or ENGINE_UNSUPPORTED where the container engine cannot run it at all, WEIGHTS_MISSING
        where the image is not here and, `offline`, may not be fetched. Starts and fetches nothing. Waits at most 60 s.
        """

    def prepare_image(
        self,
        plan: Plan,
        profile: Profile,
        found: Installation,
        listener: StageListener,
        offline: bool,
        agree: Callable[[int], bool] | None,
    ) -> None:
        """Have the image here, after what `check_host` looks at.

        `offline`: nothing may be fetched; `agree`: asked with the number of bytes before a large download, False ends
        the start. Blocks for the pull and tells `listener` of it. Raises MscliError with details["cause"].
        """

    def health(self, found: Installation) -> tuple[str, str | None]:
        """The container engine by name and version, and what keeps it from running anything (None: nothing)."""


@frozen
class Adopted:
    """A server that ran before mscli came: used as it is, and never stopped, restarted or reconfigured by mscli.

    `owner`: who runs it, for people: "systemd service ollama, user ollama", "PID 4711 (ollama serve)", "a container".
    """

    host: str
    port: int
    version: str | None
    owner: str


@frozen
class HeldModel:
    """A model that a server holds on its disk, by the name it goes by there."""

    name: str
    size_bytes: int


@frozen
class ServerLog:
    """Where a server logs that mscli did not start. `words`: for people. `file`: its path, or `command`: what prints
    its last lines; neither where it cannot be read from here."""

    words: str
    file: Path | None = None
    command: tuple[str, ...] = ()


@frozen
class Kept:
    """A model in a folder of this disk. `ours`: mscli fetched it into its own store; else it is only borrowed."""

    name: str
    size_bytes: int
    folder: Path
    manifest: Path
    ours: bool


@runtime_checkable
class Hosted(Engine, Protocol):
    """An engine whose server holds many models and fetches them itself (Ollama).

    An instance has a server of its own: the lifecycle calls `stored`, else has the weights fetched by a server that
    runs only for that (`bare`, `fetch`), then spawns `command`, and once the server is healthy calls `prepare`. A
    server that runs already is used only where the user asks for it, or names one on another machine (`adopt`): then
    `check` goes first, `prepare` has that server fetch the weights too, and a stop calls `release`.
    """

    def alias_of(self, name: str) -> str:
        """The name under which clients find the model of the instance `name` on the server."""

    def for_clients(self, sampling: Sampling) -> str | None:
        """In words, what clients of the server's OpenAI endpoint must send by themselves; None if nothing."""

    def stored(self, variant: Variant) -> WeightFiles | None:
        """The variant's weights on this disk, whole, wherever a server keeps them; None where they are to be fetched.
        `model` of them is the path of their manifest."""

    def damaged(self, weights: WeightFiles, listener: Listener) -> tuple[Path, ...]:
        """Of weights that `stored` found, the files that are not what they should be; hashes every byte."""

    def kept(self) -> tuple[Kept, ...]:
        """The models in every folder of this disk that can be borrowed from, mscli's own store first."""

    def drop(self, kept: Kept) -> None:
        """Remove a model from mscli's own store. Raises FILE where that fails."""

    def closed(self) -> str | None:
        """In words, which models folder of this machine may not be read, and what opens it; None if all may."""

    def bare(self, found: Installation, address: tuple[str, int]) -> Command:
        """A server that is only there to fetch, into mscli's own store: no plan, no GPU."""

    def fetch(self, address: tuple[str, int], variant: Variant, listener: Listener) -> WeightFiles:
        """Have the server at `address` pull the variant, unless it has it. Blocks for the pull."""

    def running(self) -> Adopted | None:
        """The server that answers where clients of this user would look, or None."""

    def adopt(self) -> Adopted | None:
        """The server on another machine that this user's environment names, None where it names none.

        Raises ENGINE_MISSING when it names one that does not answer.
        """

    def check(
        self, adopted: Adopted, profile: Profile, model: Model, alias: str | None = None, replace: bool = False
    ) -> tuple[str, ...]:
        """Warnings about an adopted server: what it decides and mscli cannot promise there, its settings, its user.

        `alias`: the model that is to be loaded, None if none is. Raises ENGINE_UNSUPPORTED if the server is too old,
        INSTANCE_EXISTS if the load would put somebody else's model out of memory and `replace` does not allow it.
        """

    def prepare(
        self, address: tuple[str, int], plan: Plan, profile: Profile, model: Model, alias: str, listener: Listener
    ) -> Observed:
        """Have the model on the server, derived as planned under `alias`, and loaded; what the server says it took.

        Blocks for the pull and the load. Raises MscliError with details["cause"].
        """

    def load(self, address: tuple[str, int], alias: str) -> bool:
        """Load a model that `prepare` made and that is in memory no more; False if the server has it no more.

        Blocks for the load; raises as `prepare` does.
        """

    def release(
        self, address: tuple[str, int], alias: str, purge: bool, listener: Callable[[str], None] = lambda _: None
    ) -> None:
        """Unload our model where it is loaded, and remove it when `purge`; everything else on the server stays as it
        is. Blocks until the model is out of memory, for as long as another client's request to it runs; `listener` is
        told what is waited for. Raises STOP_FAILED where the server refuses, or does not get there in time."""

    def log_of(self, address: tuple[str, int]) -> ServerLog:
        """Where the server at `address` logs, which mscli did not start."""

    def held(self, address: tuple[str, int]) -> tuple[HeldModel, ...]:
        """The models on the server's disk; empty when it does not answer."""

    def remove(self, address: tuple[str, int], name: str) -> None:
        """Remove a model from the server's disk. Raises MscliError when it refuses."""


def option_flags(options: Mapping[str, OptionValue]) -> Iterator[str]:
    """A profile's options as flags, as they are given: True stands alone, False is left out."""
    for key, value in options.items():
        if value is not False:
            yield from (f"--{key}",) if value is True else (f"--{key}", str(value))
