"""`mscli up`: plan, pull, start, and wait until it answers."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.options import (
    Container,
    Context,
    Engine,
    Events,
    ForAgents,
    Gpus,
    Heal,
    Images,
    Json,
    Kv,
    Offload,
    Prefer,
    ProfileFile,
    TimeoutS,
    Users,
    Variant,
    say_old_name,
)
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.chat.selftest import FirstAnswer
    from mscli.cli.progress import Hears
    from mscli.lifecycle.first_install import Consent, Fetching
    from mscli.lifecycle.up import Ask, Up

_EPILOG = "Examples: mscli up  |  mscli up rehearsal  |  mscli up --for agents  |  mscli up small-q4 --dry-run"

_PROFILE = "Profile or model to start (default: best fit)."
_NAME = "Name the instance (default: from the profile)."
_PORT = "Listen on this port (default: a free one)."
_HOST = "Listen on this address (default: from the profile)."
_WEIGHTS = "Use weights copied by `mscli pull --to`."
_TEMPLATE = "Use the GGUF file's chat template (llama.cpp)."
_KEY_FILE = "Read the keys that clients must send from FILE."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", epilog=_EPILOG)(up)


def up(
    ctx: typer.Context,
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help=_PROFILE)] = None,
    file: ProfileFile = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help=_NAME)] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", min=1, max=65535, help=_PORT)] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help=_HOST)] = None,
    context: Context = None,
    gpus: Gpus = None,
    users: Users = None,
    images: Images = None,
    kv: Kv = None,
    engine: Engine = None,
    container: Container = False,
    variant: Variant = None,
    prefer: Prefer = None,
    timeout: TimeoutS = 1800.0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready.")] = True,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the running instance of this name.")] = False,
    require_gpu: Annotated[bool, typer.Option(help="Fail if the engine falls back to the CPU.")] = True,
    offload: Offload = False,
    client: ForAgents = None,
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FOLDER", help=_WEIGHTS)] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    api_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help=_KEY_FILE)] = None,
    heal: Heal = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and the command; start nothing.")] = False,
    supervise: Annotated[bool, typer.Option("--supervise", help="Restart it when it crashes or hangs.")] = False,
    idle_stop: Annotated[str | None, typer.Option(metavar="TIME", help="Unload the model when idle: 30m.")] = None,
    adopt: Annotated[bool, typer.Option("--adopt", help="Use the Ollama server that is already running.")] = False,
    gateway: Annotated[bool, typer.Option("--gateway", help="Put mscli's gateway before llama.cpp or vLLM.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Leave out the gateway before Ollama or mistral.rs.")] = False,
    template: Annotated[str | None, typer.Option(metavar="gguf", help=_TEMPLATE)] = None,
    install: Annotated[bool, typer.Option(help="Install the engine if it is missing.")] = True,
    installed_only: Annotated[bool, typer.Option("--installed-only", help="Use installed engines only.")] = False,
    check: Annotated[bool, typer.Option(help="Ask the model one short question at the end.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", envvar="MSCLI_YES", help="Do not ask for confirmation.")] = False,
    events: Events = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Start a model: the given profile, or the best fit."""
    from mscli.cli.options import overrides_of, seconds, typed_profile
    from mscli.instances.records import Request
    from mscli.lifecycle.readiness import Patience
    from mscli.lifecycle.up import Ask

    screen = open_screen(ctx, json or events)
    profile = typed_profile(ctx, profile, file)
    overrides = overrides_of(context, users, images, kv, gpus, engine, container, variant, prefer, offload, client)
    request = Request(
        profile, _absolute(file), host, port, overrides, require_gpu, _absolute(weights), adopt, supervise,
        seconds("--idle-stop", idle_stop), _front(gateway, plain), _whose(template),
    )  # fmt: skip
    key = _key(api_key_file)
    ask = Ask(request, name, Patience(timeout_s=timeout), wait, replace, key, offline, installed_only=installed_only)
    if dry_run:
        _dry_run(screen, ask, heal)
    else:
        _up(screen, ask, events, heal, install and not installed_only, yes, check)


def _absolute(path: Path | None) -> str | None:
    from mscli.paths import expanded

    return str(expanded(path).absolute()) if path else None


def _front(gateway: bool, plain: bool) -> bool | None:
    if gateway and plain:
        raise MscliError(Code.USAGE, "--gateway and --plain exclude each other", "Leave out one of them.")
    return gateway or (False if plain else None)


def _whose(template: str | None) -> str | None:
    if template not in (None, "gguf"):
        raise MscliError(Code.USAGE, f"no template {template!r:.40}", "For the one inside the file: --template gguf")
    return template


def _key(file: Path | None) -> str | None:
    """The key from a file or the environment: never from the command line, where every user of the machine sees it."""
    if file is None:
        return os.environ.get("MSCLI_API_KEY") or None
    key = file.read_text().strip()
    if not key:
        raise MscliError(Code.USAGE, f"the key file {file} is empty", "Write the key to it, on one line.")
    return key


def _dry_run(screen: Screen, ask: Ask, heal: bool) -> None:
    from mscli.cli.plan_view import plan_json, show_plan
    from mscli.lifecycle import up as as_planned
    from mscli.lifecycle.healing import attempts as healing
    from mscli.paths import places

    done = (healing if heal else as_planned).dry_run(ask, places())
    plan, notes = plan_json(done.decision.plan, done.preview.command), done.preview.notes
    reason = done.decision.choice.reason if done.decision.choice else None
    if screen.json_mode:
        screen.data({"plan": plan, "instance": None, "name": done.name, "reason": reason, "notes": list(notes)})
        return
    say_old_name(screen, done.decision.profile)
    plan_made = done.decision.plan
    head = f"selected {plan_made.profile}, {reason}" if reason else f"{plan_made.profile}"
    screen.paragraph(head, style="bold")
    show_plan(screen, plan_made, done.decision.model.title, done.preview)
    for note in notes:
        screen.note(f"note: {note}", "yellow")


def _up(screen: Screen, ask: Ask, events: bool, heal: bool, install: bool, yes: bool, check: bool) -> None:
    from mscli.cli.hub_login import until_admitted

    done = until_admitted(screen, lambda: _started(screen, ask, events, heal, install, yes))
    report(screen, done, _first_answer(done) if check and ask.wait and not done.already else None)


def _started(screen: Screen, ask: Ask, events: bool, heal: bool, install: bool, yes: bool) -> Up:
    from dataclasses import replace

    from mscli.cli.progress import listener_of
    from mscli.lifecycle.healing import attempts as healing
    from mscli.paths import places

    start = healing.up if heal else healing.up_as_planned
    with listener_of(screen, events) as progress:
        asked = replace(
            ask,
            agree=progress.agree if screen.live and not yes else None,
            consent=_consent(screen, progress, yes) if install else None,
        )
        try:
            return start(asked, places(), progress)
        except KeyboardInterrupt:
            raise _interrupted(progress.started) from None


def _first_answer(done: Up) -> FirstAnswer | None:
    """One question to what was started: that it answers, and how fast. None where it is not ready."""
    from mscli.chat.reply import target_of
    from mscli.chat.selftest import first_answer

    try:
        return first_answer(target_of(done.record)) if done.instance.state == "ready" else None
    except MscliError:  # it has ended meanwhile, which its state tells
        return None


def _interrupted(started: bool) -> MscliError:
    """What is true after a Ctrl-C."""
    if started:
        return MscliError(
            Code.INTERRUPTED,
            "interrupted; the server is still starting",
            "Follow it: mscli logs -f\nStop it: mscli down",
        )
    return MscliError(Code.INTERRUPTED, "interrupted; nothing was started", "What was downloaded is kept.")


def _consent(screen: Screen, progress: Hears, yes: bool) -> Consent:
    """Who says whether an engine may be installed: the command line, the user at the terminal, or nobody."""

    def consent(fetching: Fetching) -> bool:
        if yes:
            return True
        if screen.live and sys.stdin is not None and sys.stdin.isatty():
            return progress.agree_all(fetching)
        raise MscliError(
            Code.CONFIRMATION_NEEDED,
            f"{fetching.engine.what} must be installed first, and there is no terminal to ask for confirmation",
            f"Type: {shlex.join(['mscli', *sys.argv[1:], '-y'])}",
            {"engine": fetching.engine.engine, "engine_bytes": fetching.engine.download_bytes,
             "weights_bytes": fetching.weights_bytes, "folder": str(fetching.engine.folder)},
        )  # fmt: skip

    return consent


def report(screen: Screen, done: Up, answer: FirstAnswer | None = None) -> None:
    """Show what `up` or `restart` did. `answer`: what the model said to the first question, where one was asked."""
    from mscli.cli.instance_view import instance_json
    from mscli.cli.plan_view import plan_json
    from mscli.instances.json_values import to_json

    if done.decision:
        say_old_name(screen, done.decision.profile)
    for warning in done.warnings:
        screen.note(f"warning: {warning}", "yellow")
    if screen.json_mode:
        choice = done.decision.choice if done.decision else None
        screen.data(
            {
                "plan": plan_json(done.record.plan, None, done.record.argv, done.record.env),
                "instance": instance_json(done.instance),
                "already": done.already,
                "reason": choice.reason if choice else None,
                "seconds": round(done.seconds, 3),
                "engine_seconds": None if done.engine_seconds is None else round(done.engine_seconds, 3),
                "observed": to_json(done.observed),
                "taken_bytes": to_json(done.taken_bytes),
                "warnings": list(done.warnings),
                "healed": to_json(done.healed),
                "answer": to_json(answer),
            }
        )
        return
    _say_up(screen, done, answer)


def _alone() -> bool:
    """Whether a command without a name finds the instance that was started: no other one runs."""
    from mscli.instances.records import Records, running
    from mscli.paths import places

    records = Records(places())
    return sum(running(record) for record in records.all()[0]) == 1


def _said(done: Up, answer: FirstAnswer) -> str:
    """The answer with its speed beside the predicted one, and the GPU memory that was taken."""
    if answer.fault:
        return f"the model did not answer a test question: {answer.fault} (more tests: mscli check)"
    speed, planned = answer.decode_tok_s, done.record.plan.speed
    parts = [f'"{answer.line}"']
    if speed is not None:
        expected = f" ({planned.decode_tok_s[0]:.0f} to {planned.decode_tok_s[2]:.0f} expected)" if planned else ""
        parts.append(f"{speed:.0f} tok/s{expected}")
    return ", ".join(parts)


def _on_gpus(done: Up) -> str | None:
    """The GPU memory that the start took, as the driver tells it, and how many layers the engine put there."""
    if not done.taken_bytes:
        return None
    taken = ", ".join(f"GPU {gpu}: {size / 2**30:.1f} GiB" for gpu, size in sorted(done.taken_bytes.items()))
    layers = done.observed.gpu_layers if done.observed else None
    return f"{taken} taken" + (f", {layers[0]} of {layers[1]} layers" if layers else "")


def _say_up(screen: Screen, done: Up, answer: FirstAnswer | None) -> None:
    seen, record, alone = done.instance, done.record, _alone()
    if done.decision and done.decision.choice:
        screen.paragraph(f"selected {seen.profile}, {done.decision.choice.reason}")
    how = "is already running" if done.already else f"is {seen.state} after {done.seconds:.1f} s"
    screen.paragraph(f"{seen.name} {how}", style="bold green" if seen.state == "ready" else "bold")
    for heal in done.healed:
        screen.paragraph(f"adjusted so that it starts: {heal.change} ({heal.why})", "  ", "    ", "yellow")
    screen.fields(
        (
            ("model", f"{record.title} on {seen.engine}, {seen.context:,} tokens of context"),
            *((("on", proof),) if (proof := _on_gpus(done)) else ()),
            *((("answer", _said(done, answer)),) if answer else ()),
            ("API", f"{seen.base_url} (model {seen.model})"),
            ("try it", f'mscli chat "hello"{"" if alone else f" -i {seen.name}"}'),
            ("watch", f"mscli logs -f{'' if alone else f' {seen.name}'}"),
            ("stop it", f"mscli down {seen.name}"),
        )
    )
    if seen.stand_in:
        screen.paragraph("This is a scripted stand-in on a real engine, not a language model.", "  ", style="dim")
