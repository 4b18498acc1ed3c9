"""Ollama: a server that holds many models, fetches them itself, and often runs already as a service.

Its OpenAI endpoint knows no context length, so what was planned goes into a model of our own on the server, derived
from the library's: the same bytes with num_ctx, sampling and system prompt.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path

from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import Profile
from mscli.catalog.sampling import Sampling
from mscli.engines.engine import (
    LOADING,
    STARTING,
    Adopted,
    Capabilities,
    Command,
    HeldModel,
    Installation,
    Kept,
    Observed,
    ServerLog,
    Serving,
)
from mscli.engines.ollama import installation, observed
from mscli.engines.ollama.api import Api, Refusal
from mscli.engines.ollama.flags import (
    FOREVER,
    Parameter,
    check_options,
    common_environment,
    environment,
    for_clients,
    parameters,
)
from mscli.engines.ollama.installation import NAME, PROGRAM, installed
from mscli.engines.ollama.observed import refuse_old, refuse_old_program, settings_note, warnings
from mscli.engines.ollama.pull import Order, pull
from mscli.engines.ollama.server import Address, Server, find, look, models_folder, remote, systemd_service
from mscli.engines.ollama.store import all_stored, borrowed, clear_damaged, derive, drop, read, stored
from mscli.errors import Code, MscliError
from mscli.paths import places
from mscli.planning.plan import Plan
from mscli.weights.progress import Listener, Note, WeightFiles

UNLOAD_TIMEOUT_S = 600.0
_TOLD_AFTER_S = 1.0
# What a server says that may not set the time of a blob which another user owns: it only does so to keep it.
_NOT_OURS = re.compile(r"chtimes \S+: operation not permitted")
_SHORT_OF_MEMORY = ("oom_weights", "oom_kv", "gpu_busy", "host_ram")
NAMESPACE = "mscli"
_STAGES = (
    (re.compile(r"starting (?:llama-server|llama server|runner)|loading model via"), LOADING),
    (re.compile(r"msg=\"server config\"|Listening on "), STARTING),
)


class Ollama:
    """The engine of Ollama's library models: a server of the instance's own, or one that runs already."""

    name = NAME
    program = PROGRAM
    capabilities = Capabilities(
        vision=True,
        tools=True,
        reasoning=True,
        kv_types=("f16", "q8_0", "q4_0"),
        multi_gpu=True,
        api_key=False,
        cpu=True,
        idle_option="keep_alive",
        gateway="ollama",
    )
    health_path = "/api/version"
    stop_signals: tuple[int, ...] = (signal.SIGTERM,)
    stop_grace_s = 10.0

    def locate(self) -> Installation:
        """See the contract: `ollama` on PATH, else the copy that mscli installed."""
        return installation.locate()

    def command(
        self,
        plan: Plan,
        profile: Profile,
        model: Model,
        weights: WeightFiles,
        serving: Serving,
        found: Installation,
    ) -> Command:
        """See the contract. The server's settings are its environment; what belongs to the model is in `parameters`.

        Its models folder goes with the instance; the weights in it are links into the folder that holds them.
        """
        check_options(profile)
        refuse_old_program(found, model.variants[plan.variant])
        models = serving.run_dir / "tmp" / "models"
        env = environment(plan, profile, (serving.host, serving.port), models)
        files, links = borrowed(Path(weights.model), Path(env["OLLAMA_MODELS"]))
        return Command((*found.argv, "serve"), env, files, links=links)

    def stage(self, line: str) -> str | None:
        """See the contract."""
        return next((stage for pattern, stage in _STAGES if pattern.search(line)), None)

    def observe(self, log: str) -> Observed:
        """See the contract."""
        return observed.of_log(log)

    def alias_of(self, name: str) -> str:
        """See the contract."""
        return alias_of(name)

    def for_clients(self, sampling: Sampling) -> str | None:
        """See the contract."""
        return for_clients(sampling)

    def stored(self, variant: Variant) -> WeightFiles | None:
        """See the contract. Looks into mscli's own store, the user's models folder, and the systemd service's."""
        tag = variant.source.repository
        for models in _folders():
            with contextlib.suppress(PermissionError):
                if (found := stored(models, tag)) and found.whole:
                    return WeightFiles(str(found.manifest), None, found.size_bytes)
        return None

    def damaged(self, weights: WeightFiles, listener: Listener) -> tuple[Path, ...]:
        """See the contract."""
        found = read(Path(weights.model))
        return found.damaged(listener) if found else ()

    def kept(self) -> tuple[Kept, ...]:
        """See the contract."""
        return tuple(
            Kept(name, found.size_bytes, models, found.manifest, models == own_models())
            for models in _folders()
            for name, found in all_stored(models)
        )

    def drop(self, kept: Kept) -> None:
        """See the contract."""
        try:
            drop(kept.manifest)
        except OSError as fault:
            message = f"{kept.name} could not be removed from {kept.folder}: {fault.strerror}"
            raise MscliError(Code.FILE, message, f"To remove it yourself: rm {kept.manifest}") from fault

    def closed(self) -> str | None:
        """See the contract."""
        for models in _folders():
            try:
                stored(models, "")
            except PermissionError:
                above = " ".join(str(folder) for folder in (models.parent.parent, models.parent))
                return (
                    f"the models folder {models} is not readable by this user: its models would be downloaded again. "
                    f"To open it: sudo chmod o+x {above} && sudo chmod -R o+rX {models}"
                )
        return None

    def running(self) -> Adopted | None:
        """The server at OLLAMA_HOST (else the default address), or where the systemd service listens.

        Waits at most 1 s for each. Raises ENGINE_UNSUPPORTED for an OLLAMA_HOST that cannot be served through.
        """
        return _adopted(find(os.environ))

    def adopt(self) -> Adopted | None:
        """See the contract."""
        return _adopted(remote(os.environ))

    def check(
        self, adopted: Adopted, profile: Profile, model: Model, alias: str | None = None, replace: bool = False
    ) -> tuple[str, ...]:
        """See the contract. Looks at the server's process or service once more."""
        check_options(profile)
        server = look(Address("http", adopted.host, adopted.port), adopted.version or "")
        on_disk = installed()
        variant = model.variants[profile.variant]
        refuse_old(server, on_disk, variant)
        if alias is not None and not replace:
            _refuse_sharing(Api(adopted.host, adopted.port), variant.source.repository, alias)
        return warnings(server, on_disk, model, os.environ)

    def prepare(
        self, address: tuple[str, int], plan: Plan, profile: Profile, model: Model, alias: str, listener: Listener
    ) -> Observed:
        """See the contract. Raises START_FAILED when the server does not load the model."""
        api, source, note = Api(*address), model.variants[plan.variant].source.repository, None
        try:
            server = look(Address("http", *address), api.version())
            refuse_old(server, None, model.variants[plan.variant])
            if note := settings_note(server, plan):
                listener.note(Note("settings", note))
            pull(_order(api, server, model.variants[plan.variant]), listener)
            _create(api, server, alias, source, parameters(plan, profile, model.sampling), model.system_prompt)
            before = observed.devices(plan)
            api.load(alias, profile.options.get("keep_alive", FOREVER))
            return observed.of_server(api, alias, plan, model, server.version, before, note)
        except Refusal as refusal:
            raise _failed(refusal, alias, note) from refusal

    def bare(self, found: Installation, address: tuple[str, int]) -> Command:
        """See the contract. Removes what of mscli's own store is damaged: a pull would take it for whole."""
        clear_damaged(own_models())
        env = common_environment(address, own_models())
        return Command((*found.argv, "serve"), {**env, "CUDA_VISIBLE_DEVICES": "-1"})

    def fetch(self, address: tuple[str, int], variant: Variant, listener: Listener) -> WeightFiles:
        """Have the server at `address` pull the variant, unless it has it. Blocks for the pull; raises as it does."""
        api = Api(*address)
        try:
            server = look(Address("http", *address), api.version())
        except Refusal as refusal:
            raise _failed(refusal, variant.source.repository) from refusal
        refuse_old(server, None, variant)
        return pull(_order(api, server, variant), listener)

    def load(self, address: tuple[str, int], alias: str) -> bool:
        """See the contract."""
        try:
            Api(*address).load(alias, FOREVER)
        except Refusal as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND:
                return False
            raise _failed(refusal, alias) from refusal
        return True

    def release(
        self, address: tuple[str, int], alias: str, purge: bool, listener: Callable[[str], None] = lambda _: None
    ) -> None:
        """See the contract. Waits at most UNLOAD_TIMEOUT_S until the model is out of memory.

        A server or a model that is not there (any more) is no fault. Memory is keyed by the weights: where another
        model of the same weights is in memory in place of ours, it is left alone.
        """
        api = Api(*address)
        try:
            if api.loaded(alias):
                api.unload(alias)
                _wait_unloaded(api, alias, listener)
            if purge:  # unloaded first: a model that is deleted stays in memory, and can no longer be named
                api.delete(alias)
        except Refusal as refusal:
            if refusal.status not in (None, 404):
                raise _not_released(refusal, alias) from refusal

    def log_of(self, address: tuple[str, int]) -> ServerLog:
        """See the contract."""
        return look(Address("http", *address), "").log

    def held(self, address: tuple[str, int]) -> tuple[HeldModel, ...]:
        """See the contract."""
        try:
            return Api(*address).held()
        except Refusal:
            return ()

    def remove(self, address: tuple[str, int], name: str) -> None:
        """See the contract."""
        api = Api(*address)
        try:
            if api.loaded(name):  # else it stays in memory, and can no longer be named
                api.unload(name)
            api.delete(name)
        except Refusal as refusal:
            raise MscliError(
                Code.REQUEST_FAILED,
                f"Ollama did not remove {name}: {refusal.words}",
                f"To remove it yourself: ollama rm {name}",
            ) from refusal


def alias_of(name: str) -> str:
    """The name of the instance's own model on the server, which is what clients of either API send as `model`."""
    return f"{NAMESPACE}/{name}"


def own_models() -> Path:
    """mscli's own store: what no other models folder of this machine had."""
    return places().ollama / "models"


def _folders() -> Iterator[Path]:
    """The models folders of this machine that can be borrowed from, mscli's own first."""
    service = systemd_service()
    named = (own_models(), models_folder(os.environ, None), service.models if service else None)
    yield from dict.fromkeys(folder for folder in named if folder)


def _adopted(server: Server | None) -> Adopted | None:
    return Adopted(server.address.host, server.address.port, server.version, server.owner) if server else None


def _create(
    api: Api, server: Server, alias: str, source: str, wanted: Mapping[str, Parameter], system: str | None
) -> None:
    """Make the instance's own model. Raises Refusal."""
    try:
        api.create(alias, source, wanted, system)
    except Refusal as refusal:
        if server.models is None or not _NOT_OURS.search(refusal.words):
            raise
        derive(server.models, source, alias, wanted, system)


def _order(api: Api, server: Server, variant: Variant) -> Order:
    return Order(api.url, api.direct, variant.source.repository, variant.download_bytes, server.models)


def _wait_unloaded(api: Api, alias: str, listener: Callable[[str], None]) -> None:
    """Raises Refusal when the model is still in memory after UNLOAD_TIMEOUT_S."""
    begun, told = time.monotonic(), False
    while api.loaded(alias):
        waited_s = time.monotonic() - begun
        if waited_s > UNLOAD_TIMEOUT_S:
            raise Refusal(HTTPStatus.CONFLICT, f"a request of another client has kept it loaded for {waited_s:.0f} s")
        if waited_s > _TOLD_AFTER_S and not told:
            listener(f"waiting for another client's request to {alias} to finish")
            told = True
        time.sleep(0.05)


def _refuse_sharing(api: Api, source: str, alias: str) -> None:
    """Raises INSTANCE_EXISTS when another model of the same weights is in memory: the server holds one of them."""
    try:
        ours = api.blob(source)
        others = [name for name in api.in_memory() if name.lower() not in (alias.lower(), f"{alias.lower()}:latest")]
        shared = next((name for name in others if ours and api.blob(name) == ours), None)
    except Refusal:
        return  # not there yet, so that nothing in memory can be of these weights; or a server that does not tell
    if shared:
        raise MscliError(
            Code.INSTANCE_EXISTS,
            f"{shared} is in the memory of this server, with the same weights: loading {alias} would unload it",
            f"Stop it first: ollama stop {shared}. Or unload it: --replace. Or leave out --adopt: the instance "
            "then has its own server and its own copy.",
            {"model": shared},
        )


def _failed(refusal: Refusal, alias: str, settings: str | None = None) -> MscliError:
    """The server did not load our model: the cause by its own words. `settings`: what makes the model larger than
    planned there, in words."""
    from mscli.diagnosis.diagnose import start_failure  # reads the signatures; only a refusal needs it

    found = start_failure(refusal.words, NAME, None)
    code = "unknown" if refusal.status is None else found.code
    known = code != "unknown"
    return MscliError(
        Code.START_FAILED,
        f"Ollama did not load {alias}: {found.summary if known else refusal.words}"
        + (f"; {settings}" if settings and found.code in _SHORT_OF_MEMORY else ""),
        f"{found.remedy} The server's log says more.".strip() if known else "Its log says more: journalctl -u ollama",
        {"cause": code, "evidence": [refusal.words], "http_status": refusal.status},
    )


def _not_released(refusal: Refusal, alias: str) -> MscliError:
    return MscliError(
        Code.STOP_FAILED,
        f"Ollama did not unload {alias}: {refusal.words}",
        f"ollama stop {alias}; ollama rm {alias}",
        {"http_status": refusal.status},
    )
