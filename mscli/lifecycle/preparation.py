"""Everything of a start up to its spawn: the decision, the engine, the weights; and what is refused before that.

Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mscli.engines import engine as contract
from mscli.engines.engine import Adopted, Command, Engine, Hosted, Imaged, Preparing, Serving
from mscli.engines.table import engine as engine_named
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.instances.fetching import FetchNote
from mscli.instances.records import GGUF, Record, Records, Request, leads, running, seen
from mscli.instances.store import check_name, is_name
from mscli.lifecycle import launch as launching
from mscli.lifecycle.decision import Adjust, Decision, chosen, decide
from mscli.lifecycle.first_install import Consent, engine_here, have_engine
from mscli.lifecycle.launch import Launch, StartFailure
from mscli.lifecycle.preview import expected_weights
from mscli.lifecycle.progress import Download, Listener, Patience, stopped_fetching
from mscli.paths import Places
from mscli.planning.plan import ENGINE_READY, Choice
from mscli.weights.ensure import ensure, wanted
from mscli.weights.progress import Listener as WeightsListener
from mscli.weights.progress import Silence, WeightFiles

LARGE_BYTES = 10**9
_ADOPTED, _PLAIN = "a server that is already running has no gateway", "--plain leaves out the gateway"


def _nothing() -> None:
    pass


@frozen
class Ask:
    """One `mscli up`. `name` None: named after the profile. `api_key` None: none, or one made up where it is needed.

    `agree`: asked with the number of bytes before a large download; False ends the start. `adjust`, `stay`: what to
    change of the profile, and the choice to stay with (see decision.decide). `consent`: asked with all that is to be
    fetched before an engine is installed; None: none is. `installed_only`: choose among engines that are here.
    `meanwhile`: done once the engine is spawned: what can be prepared while it loads.
    """

    request: Request
    name: str | None = None
    patience: Patience = Patience()
    wait: bool = True
    replace: bool = False
    api_key: str | None = None
    offline: bool = False
    agree: Callable[[int], bool] | None = None
    adjust: Adjust | None = None
    stay: Choice | None = None
    consent: Consent | None = None
    installed_only: bool = False
    meanwhile: Callable[[], None] = _nothing


def prepare(ask: Ask, places: Places, listener: Listener) -> Launch | Record:
    """Everything up to the lock: decide, find the engine, have the weights here.

    The record of an instance where another mscli was faster with the same request.
    """
    listener.stage(contract.PLAN, "reading this machine and planning")
    agreed = agree_on(ask, places)
    if isinstance(agreed, Record):
        return agreed
    decision, name = agreed
    launch = find_engine(ask, decision, name, places, listener)
    _prepare_engine(launch, places, listener)
    if not launch.adopted:
        listener.stage(contract.WEIGHTS, f"{decision.model.title}, {decision.variant.name}")
        _ask_first(launch.agree, ask, decision)
    return replace(launch, weights=_weights(launch, places, listener))


def agree_on(ask: Ask, places: Places) -> tuple[Decision, str] | Record:
    """What is to run, and the name of its instance; the record of one that this request started before.

    Raises as decision.decide does, INSTANCE_EXISTS where something else runs under that name, ENGINE_UNSUPPORTED.
    """
    records = Records(places)
    # Before a plan, which would only say that what runs under this name takes the memory.
    if asked := ask.name or ask.request.profile:
        if there := same(ask, records):
            return there
        if ask.name or is_name(asked):  # a model's name may have more in it: org/repository, model:tag
            refuse_other(check_name(asked, new=True), ask, records)
    try:
        decision, name = decided(ask, places)
    except MscliError as fault:
        if fault.code is Code.NO_FIT and ask.request.adopt:
            _refuse_old_server(ask, places)
        raise
    if there := same(ask, records):
        return there
    refuse_other(name, ask, records)
    return decision, name


def _refuse_old_server(ask: Ask, places: Places) -> None:
    """Raises ENGINE_UNSUPPORTED where the server to adopt is too old for the model: no smaller plan would mend that."""
    if ask.request.profile is None and ask.request.file is None:
        return
    found = chosen(ask.request.profile, Path(ask.request.file) if ask.request.file else None, places)
    engine = engine_named(found.profile.engine)
    if isinstance(engine, Hosted) and (adopted := _adopted(engine, ask)):
        engine.check(adopted, found.profile, found.model)


def find_engine(
    ask: Ask, decision: Decision, name: str, places: Places | None = None, listener: Listener | None = None
) -> Launch:
    """The launch so far: with the server to adopt, or the engine's copy to spawn, installed if it is not here.

    Without `places` and `listener`, for a dry run, nothing is installed: `installation` is None where that would be.
    """
    engine = engine_named(decision.plan.engine)
    no_weights = WeightFiles(decision.variant.source.repository, None, 0)
    launch = Launch(
        name,
        ask.request,
        decision,
        engine,
        None,
        no_weights,
        ask.api_key,
        offline=ask.offline,
        agree=ask.agree,
        replaces=ask.replace,
    )
    if isinstance(engine, Hosted) and (adopted := _adopted(engine, ask)):
        _refuse_settings(ask.request, adopted)
        _refuse_keyless(engine, ask, None)
        _refuse_supervision(launch, "a server that mscli did not start")
        warnings = engine.check(adopted, decision.profile, decision.model, engine.alias_of(name), ask.replace)
        return replace(launch, adopted=adopted, warnings=warnings)
    if ask.request.template == GGUF and decision.plan.engine != "llama.cpp":
        raise MscliError(
            Code.USAGE,
            f"--template gguf: only llama.cpp reads a template from its GGUF file, and this is {engine.name}",
            "Leave out --template, or choose llama.cpp: --engine llama.cpp",
        )
    if ask.request.gateway is False:
        _refuse_keyless(engine, ask, ask.request.host or decision.profile.host)
    if places is None or listener is None:
        return replace(launch, installation=engine_here(engine, decision, installs=not ask.offline))
    consent = None if ask.offline else ask.consent
    found, fresh = have_engine(engine, decision, places, listener, consent, ask.request.weights)
    if fresh:
        return replace(launch, installation=found, decision=_with_engine(decision), agree=None)
    return replace(launch, installation=found)


def _refuse_keyless(engine: Engine, ask: Ask, host: str | None) -> None:
    """Raises ENGINE_UNSUPPORTED where there is no gateway to ask for a key that is needed: the user gave one, or
    everybody who reaches the port could use the model. `host` None: of a server that is not ours."""
    if engine.capabilities.api_key:
        return
    if ask.api_key is not None:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"{engine.name} cannot require an API key, and " + (_ADOPTED if host is None else _PLAIN),
            "Leave out the key (MSCLI_API_KEY, --api-key-file), or " + ("--adopt." if host is None else "--plain."),
        )
    if host is not None and not launching.loopback(host):
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"{engine.name} cannot ask its clients for an API key: on {host} it would answer anyone who can reach it",
            "Leave out --plain: the gateway asks for a key. Or leave out --host and reach it through SSH.",
            {"engine": engine.name, "host": host},
        )


def _with_engine(decision: Decision) -> Decision:
    """The same decision once its engine is here."""
    return replace(decision, plan=replace(decision.plan, engine_state=ENGINE_READY))


def _adopted(engine: Hosted, ask: Ask) -> Adopted | None:
    """The server that runs already and is to be used: asked for, or named on another machine. Raises ENGINE_MISSING."""
    if not ask.wait:
        raise MscliError(
            Code.USAGE,
            f"{engine.name} loads a model on demand: with --no-wait the server would have none",
            "Leave out --no-wait.",
        )
    if not ask.request.adopt:
        return engine.adopt()
    if found := engine.adopt() or engine.running():
        return found
    raise MscliError(
        Code.ENGINE_MISSING,
        f"--adopt: no {engine.name} server answers here",
        "Leave out --adopt, and mscli starts one for the instance. Or start yours first.",
        {"cause": "ollama_not_running"},
    )


def _refuse_settings(request: Request, adopted: Adopted) -> None:
    """Raises USAGE for settings that belong to the server, which mscli does not change."""
    asked = {
        "--port": request.port, "--host": request.host, "--users": request.overrides.users,
        "--idle-stop": request.idle_stop_s,
    }  # fmt: skip
    at = {"--port": adopted.port, "--host": adopted.host}
    if wrong := [flag for flag, value in asked.items() if value is not None and value != at.get(flag)]:
        raise MscliError(
            Code.USAGE,
            f"{', '.join(wrong)} cannot be set on a running server ({adopted.owner}, {adopted.host}:{adopted.port})",
            f"Leave out {' and '.join(wrong)}. Or leave out --adopt, and mscli starts a server for the instance.",
        )


def _prepare_engine(launch: Launch, places: Places, listener: Listener) -> None:
    """Refuse what this engine cannot do, and have it see to its own needs, before any weight is fetched."""
    engine, decision, found = launch.engine, launch.decision, launch.installation
    if launch.adopted or found is None:
        return
    folder = launch.request.weights
    weights = WeightFiles(folder, None, 0) if folder else expected_weights(decision.model, decision.variant, [])
    expected = replace(launch, weights=weights)
    command = allowed(expected, launching.serving(expected, Records(places)))
    if isinstance(engine, Imaged):
        engine.prepare_image(decision.plan, decision.profile, found, listener, launch.offline, launch.agree)
    if isinstance(engine, Preparing):
        try:
            engine.prepare_start(command, decision.plan, decision.profile, found, listener)
        except MscliError as fault:
            raise StartFailure.of(fault, decision, said(fault)) from fault


def allowed(launch: Launch, where: Serving) -> Command:
    """The command of a launch at `where`. Raises USAGE where it was asked for what a container has not, and what the
    engine refuses."""
    command = launching.command(launch, where)
    if command.contained:
        _refuse_supervision(launch, "a container")
        _refuse_gateway(launch)
    return command


def _refuse_supervision(launch: Launch, what: str) -> None:
    """Raises USAGE where the instance is to be kept running and cannot be: it has a keeper of its own."""
    if launch.request.supervise:
        raise MscliError(
            Code.USAGE,
            f"--supervise: {launch.name} would be {what}, which mscli does not restart",
            "Leave out --supervise; systemd or the container engine can restart it.",
        )


def _refuse_gateway(launch: Launch) -> None:
    if launch.request.gateway:
        raise MscliError(
            Code.USAGE, f"--gateway: {launch.name} would be a container, which has no gateway", "Leave out --gateway."
        )


def said(fault: MscliError) -> str:
    """What the engine said where it wrote no log of this start, and what was made of it."""
    lines = fault.details.get("evidence")
    return "\n".join(map(str, [*lines, fault.hint] if isinstance(lines, list) else []))


def _weights(launch: Launch, places: Places, listener: WeightsListener) -> WeightFiles:
    """The weight files, fetched first; a server that was there before fetches them itself, once it is asked to load."""
    if launch.adopted:
        return launch.weights
    variant, profile = launch.decision.variant, launch.decision.profile.name
    store = Records(places)
    with FetchNote(store, launch.name, profile, launch.engine.name) as note:
        log = store.run_dir(launch.name) / "log"
        heard = Download(listener, note, lambda: stopped_fetching(launch.name, profile, log))
        folder = Path(launch.request.weights) if launch.request.weights else None
        try:
            if isinstance(launch.engine, Hosted):
                from mscli.lifecycle import server_weights  # a start with files needs no server to fetch them

                return server_weights.ensure(launch.engine, variant, heard, launch.offline, launch.agree)
            return ensure(launch.decision.model, variant, heard, offline=launch.offline, folder=folder)
        except KeyboardInterrupt:
            if note.stopped:  # by `mscli down`, which did not want to wait any longer
                raise stopped_fetching(launch.name, profile, log) from None
            raise


def weights_here(ask: Ask, launch: Launch, notes: list[str]) -> WeightFiles:
    """The weights as the engine would be given them, with what is to be fetched in `notes`. Fetches nothing.

    Raises WEIGHTS_MISSING where a start would find nothing to load and may fetch nothing.
    """
    model, variant, folder = launch.decision.model, launch.decision.variant, ask.request.weights
    if not (ask.offline or folder):
        return expected_weights(model, variant, notes)
    if isinstance(launch.engine, Hosted):
        from mscli.lifecycle import server_weights

        return server_weights.ensure(launch.engine, variant, Silence(), offline=True)
    return ensure(model, variant, Silence(), offline=True, folder=Path(folder) if folder else None)


def _ask_first(agree: Callable[[int], bool] | None, ask: Ask, decision: Decision) -> None:
    """Let the user refuse a large download before its first byte."""
    if agree is None or decision.variant.source.kind != "hub" or ask.request.weights:
        return
    missing = wanted(decision.model, decision.variant, offline=ask.offline).missing_bytes
    if missing > LARGE_BYTES and not agree(missing):
        raise MscliError(Code.INTERRUPTED, "nothing was downloaded", "Another profile may need less: mscli profiles")


def decided(ask: Ask, places: Places) -> tuple[Decision, str]:
    """What is to run, and the name of its instance. Raises as decision.decide does."""
    name = ask.name or ask.request.profile
    decision = decide(ask.request, places, name if ask.replace else None, ask.adjust, ask.stay, ask.installed_only)
    return _unloading(decision, ask.request.idle_stop_s), check_name(ask.name or decision.profile.name, new=True)


def _unloading(decision: Decision, idle_stop_s: int | None) -> Decision:
    """The decision with the engine's own option for idle models. Raises ENGINE_UNSUPPORTED where it has none."""
    if idle_stop_s is None:
        return decision
    option = engine_named(decision.plan.engine).capabilities.idle_option
    if option is None:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"--idle-stop: {decision.plan.engine} cannot unload an idle model and load it again by itself",
            "Leave out --idle-stop, or use a profile on llama.cpp or Ollama: mscli profiles",
        )
    profile = replace(decision.profile, options={**decision.profile.options, option: idle_stop_s})
    return replace(decision, profile=profile)


def same(ask: Ask, records: Records) -> Record | None:
    """The record of the running instance that this very request started before, if there is one."""
    if ask.replace:
        return None
    for record in _candidates(ask, records):
        asked, supervised = replace(ask.request, port=None), ask.request.supervise
        alike = asked == replace(record.request, port=None, supervise=supervised and record.request.supervise)
        there = record.stopped_at is None and (record.owner is not None or leads(record))
        if alike and there and ask.request.port in (None, record.port):
            return record
    return None


def _candidates(ask: Ask, records: Records) -> tuple[Record, ...]:
    """Records that may be of this request: under its name, or, without one, of the same profile or model asked for."""
    if ask.name is not None:
        record = records.get(check_name(ask.name, new=True))
        return (record,) if record else ()
    wanted = ask.request.profile
    return tuple(
        record
        for record in records.all()[0]
        if record.name == wanted
        or (record.request.profile == wanted and (wanted is None or record.name == record.plan.profile))
    )


def refuse_other(name: str, ask: Ask, records: Records) -> None:
    """Raise INSTANCE_EXISTS when something else runs under this name and was not to be replaced."""
    record = records.get(name)
    if record is None or ask.replace or not running(record):
        return
    other = seen(record, records)
    raise MscliError(
        Code.INSTANCE_EXISTS,
        f"an instance {name!r} already exists: profile {other.profile}, context {other.context}, port {other.port}, "
        f"{other.state}; the request differs",
        f"Replace it: add --replace. Or run both: --name {name}-2. Or stop it first: mscli down {name}",
        {"instance": name, "state": other.state, "port": other.port},
    )
