"""A start as `mscli up` asks for it and shows it. Nothing here needs Typer: see main.py."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mscli.cli.screen import Screen
from mscli.cli.typed import overrides_of, say_old_name, seconds
from mscli.errors import Code, MscliError
from mscli.frozen import frozen

if TYPE_CHECKING:
    from mscli.chat.selftest import FirstAnswer
    from mscli.cli.progress import Hears
    from mscli.lifecycle.first_install import Consent, Fetching
    from mscli.lifecycle.preparation import Ask
    from mscli.lifecycle.up import Up


@frozen
class Wishes:
    """The options of `mscli up`, with what they are where they are not given."""

    profile: str | None = None
    file: Path | None = None
    name: str | None = None
    port: int | None = None
    host: str | None = None
    context: int | None = None
    gpus: str | None = None
    users: int | None = None
    images: int | None = None
    kv: str | None = None
    engine: str | None = None
    container: bool = False
    variant: str | None = None
    prefer: str | None = None
    timeout: float = 1800.0
    wait: bool = True
    replace: bool = False
    require_gpu: bool = True
    offload: bool = False
    client: str | None = None
    weights: Path | None = None
    offline: bool = False
    api_key_file: Path | None = None
    heal: bool = True
    dry_run: bool = False
    supervise: bool = False
    idle_stop: str | None = None
    adopt: bool = False
    gateway: bool = False
    plain: bool = False
    template: str | None = None
    install: bool = True
    installed_only: bool = False
    check: bool = True
    yes: bool = False
    events: bool = False
    json: bool = False


def start(screen: Screen, wishes: Wishes) -> None:
    """Do what `mscli up` was asked for, and show it. Blocks and raises as lifecycle.healing.up does."""
    from mscli.instances.records import Request
    from mscli.lifecycle.preparation import Ask
    from mscli.lifecycle.progress import Patience

    overrides = overrides_of(
        wishes.context, wishes.users, wishes.images, wishes.kv, wishes.gpus, wishes.engine, wishes.container,
        wishes.variant, wishes.prefer, wishes.offload, wishes.client,
    )  # fmt: skip
    request = Request(
        wishes.profile, _absolute(wishes.file), wishes.host, wishes.port, overrides, wishes.require_gpu,
        _absolute(wishes.weights), wishes.adopt, wishes.supervise, seconds("--idle-stop", wishes.idle_stop),
        _front(wishes.gateway, wishes.plain), _whose(wishes.template),
    )  # fmt: skip
    patience, key = Patience(timeout_s=wishes.timeout), _key(wishes.api_key_file)
    ask = Ask(
        request, wishes.name, patience, wishes.wait, wishes.replace, key, wishes.offline,
        installed_only=wishes.installed_only,
    )  # fmt: skip
    if wishes.dry_run:
        _dry_run(screen, ask, wishes.heal)
    else:
        _up(screen, ask, wishes)


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
    from mscli.lifecycle import healing
    from mscli.lifecycle import up as as_planned
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


def _up(screen: Screen, ask: Ask, wishes: Wishes) -> None:
    from mscli.cli.progress import until_admitted

    done = until_admitted(screen, lambda: _started(screen, ask, wishes))
    report(screen, done, _first_answer(done) if wishes.check and ask.wait and not done.already else None)


def _started(screen: Screen, ask: Ask, wishes: Wishes) -> Up:
    from functools import partial

    from mscli.cli.progress import listener_of
    from mscli.frozen import replace
    from mscli.lifecycle import healing
    from mscli.paths import places

    begin = healing.up if wishes.heal else healing.up_as_planned
    install = wishes.install and not wishes.installed_only
    with listener_of(screen, wishes.events) as progress:
        asked = replace(
            ask,
            agree=progress.agree if screen.live and not wishes.yes else None,
            consent=_consent(screen, progress, wishes.yes) if install else None,
            meanwhile=partial(_get_ready, wishes.check and ask.wait),
        )
        try:
            return begin(asked, places(), progress)
        except (KeyboardInterrupt, RuntimeError) as fault:
            # Python up to 3.11 makes a RuntimeError of a Ctrl-C that comes while a class is made.
            if isinstance(fault, KeyboardInterrupt) or isinstance(fault.__cause__, KeyboardInterrupt):
                raise _interrupted(progress.started) from None
            raise


def _get_ready(to_ask: bool) -> None:
    """While the engine loads: import what is needed once it is ready, and leave the next start less to do."""
    import mscli.cli.instance_view
    import mscli.cli.plan_view
    from mscli.lifecycle.pinned import keep_parsed
    from mscli.paths import places

    if to_ask:
        import mscli.chat.selftest  # noqa: F401
    keep_parsed(places())


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
