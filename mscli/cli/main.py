"""The program: one command from its arguments to its exit code, and the one place where faults become messages.

`mscli status --json`, which scripts repeat every second, `mscli chat PROMPT` and a plain `mscli up` are answered
without Typer: importing it takes longer than all the rest of the first, and a third of the start of the others.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from mscli.cli.help import asked_about, before_dashes, command_in, commands, resolved, show_help, show_standing, unknown
from mscli.cli.screen import Screen
from mscli.errors import Code, Exit, MscliError
from mscli.paths import places

# Command -> which of the user's defaults it takes, by the names of its parameters.
DEFAULTS_OF = {
    "up": ("profile", "host", "port", "users", "prefer"),
    "pull": ("profile",),
    "plan": ("price", "users", "prefer"),
    "chat": ("log",),
}
# Options whose parameter has another name, what every option takes that takes a number, and kinds of values that are
# more than a text.
_PARAMETERS = {"ctx": "context", "for": "client"}
_SMALL = 65535
# How Typer says it -> how a user would.
_PLAINLY = (
    (re.compile(r"is not a valid int(eger)?( range)?\b"), "is not a whole number"),
    (re.compile(r"is not a valid float( range)?\b"), "is not a number"),
    (re.compile(r"Got unexpected extra argument(?:\(s\)|s)? \((.*)\)"), r"Unexpected argument: \1"),
)
_TO_CONVERT = ("FILE", "FOLDER", "SECONDS")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Never raises; every fault is reported on the screen."""
    given = sys.argv[1:] if argv is None else argv
    screen = _screen(given)
    try:
        code = _run(_arguments(given, screen), screen)
    except BaseException as fault:  # the one boundary: nothing passes it as a traceback
        error = _as_error(fault, screen.command)
        screen.error(error)
        code = error.exit_code
    try:
        return _finished(screen, code)
    except KeyboardInterrupt:
        return _finished(screen, Exit.INTERRUPTED)


def interrupted(argv: Sequence[str] | None = None) -> int:
    """Report a Ctrl-C that came before `main` could; its exit code."""
    screen = _screen(sys.argv[1:] if argv is None else argv)
    error = _as_error(KeyboardInterrupt())
    screen.error(error)
    return _finished(screen, error.exit_code)


def _screen(given: Sequence[str]) -> Screen:
    """The screen, with what is to be known of it before anything can fail or be interrupted."""
    own = before_dashes(given)
    return Screen(command_in(own), json_mode=bool({"--json", "--events", "--json=stream"} & set(own)))


def _arguments(given: Sequence[str], screen: Screen) -> list[str]:
    """The arguments as Typer takes them; names the screen's command by its whole word."""
    args = resolved(["--events" if arg == "--json=stream" else arg for arg in given])
    if args[:1] == ["doctor"] and "--log" in args:
        after = args.index("--log") + 1
        if after == len(args) or args[after].startswith("--"):
            args.insert(after, "")  # the log of the only instance
    own = before_dashes(args)
    if args[:1] == ["launch"] and "--" in args:
        args = [*own, *(f"--arg={word}" for word in args[len(own) + 1 :])]  # the agent's, not ours
    screen.command = command_in(own)
    return args


def _run(args: list[str], screen: Screen) -> int:
    """What Typer is not needed for is answered without it."""
    if not sys.platform.startswith("linux"):
        hint = "Windows: install it inside WSL2. macOS: use a Linux machine with an NVIDIA GPU over SSH."
        raise MscliError(Code.ENGINE_UNSUPPORTED, "mscli runs on Linux, with NVIDIA GPUs or on the CPU", hint)
    _reserve_streams()
    if args == ["status", "--json"]:
        return _status(screen)
    if not args:
        show_standing(screen)
    elif (path := asked_about(args)) is not None:
        show_help(screen, path)
    elif args[0] == "completion" and len(args) == 2 and (script := _script(args[1])):
        screen.text(script)
    elif not args[0].startswith("-") and args[0] not in commands():
        raise unknown(args[0])
    elif args[0] == "chat" and (said := _plain_prompt(args[1:])) is not None:
        _ask(screen, *said)
    elif args[0] == "up" and (typed := _plain_options("up", args[1:])) is not None:
        from mscli.cli.starting import Wishes, start

        screen.json_mode = bool(typed.get("json") or typed.get("events"))
        start(screen, Wishes(**typed))
    else:
        return _command(args, screen)
    return Exit.DONE


def _plain_prompt(args: list[str]) -> tuple[list[str], str | None] | None:
    """(the words, the instance) of a chat whose only option is the instance; None for any other."""
    if args[:1] == ["-i"] and len(args) > 1:
        instance, words = args[1], args[2:]
    else:
        instance, words = None, args
    typed = [*words, instance or ""]
    return None if any(word.startswith("-") and word != "-" for word in typed) else (words, instance)


def _plain_options(verb: str, args: list[str]) -> dict[str, Any] | None:
    """What a command is asked for, by the names of its parameters: one word, switches, and options that take a text or
    a small number. None for whatever else, which is left to Typer, and where the user or the environment has defaults.
    """
    if "MSCLI_YES" in os.environ or _defaults(verb):
        return None
    known = {flag: option for option in commands()[verb]["options"] for flag in option["flags"]}
    typed: dict[str, Any] = {}
    words = iter(args)
    for word in words:
        flag = word.replace("--no-", "--", 1) if word not in known else word
        option = known.get(flag)
        if option is None and not word.startswith("-") and "profile" not in typed:
            typed["profile"] = word
        elif option is None or (flag != word and not option["no"]):
            return None
        else:
            value = _plain_value(option["value"], words) if option["value"] else flag == word
            if value is None:
                return None
            name = option["flags"][0].removeprefix("--").replace("-", "_")
            typed[_PARAMETERS.get(name, name)] = value
    return typed


def _plain_value(kind: str, words: Iterator[str]) -> str | int | None:
    """The value that comes next among the words; None where it takes more to read it."""
    word = next(words, "-")
    if kind == "N":
        return int(word) if re.fullmatch("[1-9][0-9]{0,4}", word) and int(word) <= _SMALL else None
    return None if word.startswith("-") or kind in _TO_CONVERT else word


def _ask(screen: Screen, words: list[str], instance: str | None) -> None:
    from mscli.cli.ask import Wishes, ask

    log = _defaults("chat").get("log", True)
    ask(screen, words, Wishes(instance, log=bool(log)))


def _script(shell: str) -> str | None:
    from mscli.cli.completion import SCRIPTS

    return SCRIPTS.get(shell)


def _reserve_streams() -> None:
    """Put /dev/null where a standard stream is closed: the next file opened would get its number, and what an engine
    or a library prints would go into that file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _finished(screen: Screen, code: int) -> int:
    """The exit code when all is done: 1 where the work succeeded and its output could not be written.

    A reader that had enough (`mscli logs | head`) is no fault. Streams that failed are given up, or Python would try
    them once more at its end and exit with 120.
    """
    screen.flush()
    if screen.lost is not None:
        sys.stdout = None  # as Python itself does for a stream that is closed
        if screen.lost.errno != errno.EPIPE:
            why = screen.lost.strerror or screen.lost
            screen.json_mode = False
            screen.note(f"error: cannot write to standard output: {why}", "bold red")
            code = code or Exit.FAILED
    try:
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        sys.stderr = None
    return code


def _status(screen: Screen) -> int:
    from mscli.cli.instance_view import show_status
    from mscli.instances.store import Store

    return show_status(screen, Store(places()))


def _command(args: list[str], screen: Screen) -> int:
    import typer

    from mscli.cli.tree import VERBS, tree

    program = typer.main.get_command(tree(args[:1] if args[0] in VERBS else ()))
    own = _defaults(args[0])
    outcome = program.main(
        args, prog_name="mscli", standalone_mode=False, obj=screen, default_map={args[0]: own} if own else None
    )
    if outcome == Exit.INTERRUPTED:  # Typer makes an exit code of Ctrl-C, without a word
        raise KeyboardInterrupt
    return outcome if isinstance(outcome, int) else Exit.DONE


def _defaults(verb: str) -> dict[str, object]:
    """The user's defaults for a command's options (see `mscli config`). Raises PROFILE_INVALID for a broken file."""
    wanted, file = DEFAULTS_OF.get(verb, ()), places().defaults
    if not wanted or not file.exists():
        return {}
    from mscli.catalog.files import read_defaults

    return {key: value for key, value in read_defaults(file).items() if key in wanted}


def _as_error(fault: BaseException, command: str = "") -> MscliError:
    if isinstance(fault, MscliError):
        return fault
    if isinstance(fault, KeyboardInterrupt) or isinstance(fault.__cause__, KeyboardInterrupt):
        return MscliError(Code.INTERRUPTED, "interrupted")
    if isinstance(fault, OSError):
        return _machine(fault)
    return _of_typer(fault, command) or _own(fault)


def _of_typer(fault: BaseException, command: str) -> MscliError | None:
    """What Typer raises, or None for a fault that is not Typer's. `command`: the one typed, where the fault has none.

    Newer versions carry their own Click, so its exceptions are reached through Typer, never by `import click`.
    """
    import typer

    usage_error, click_error = typer.BadParameter.__mro__[1:3]
    if isinstance(fault, typer.Abort):
        return MscliError(Code.INTERRUPTED, "interrupted")
    if isinstance(fault, usage_error):
        path = getattr(getattr(fault, "ctx", None), "command_path", f"mscli {command}".rstrip())
        text = fault.format_message() if hasattr(fault, "format_message") else str(fault)
        return MscliError(Code.USAGE, _as_git_says(text), f"See: {path} --help")
    return MscliError(Code.FILE, _as_git_says(str(fault))) if isinstance(fault, click_error) else None


def _as_git_says(text: str) -> str:
    """A message of Typer's without the capital at its start, the full stop at its end and the words of its code."""
    for theirs, plain in _PLAINLY:
        text = theirs.sub(plain, text)
    return text[:1].lower() + text[1:].removesuffix(".")


def _machine(fault: OSError) -> MscliError:
    where = f": {fault.filename}" if fault.filename else ""
    text = f"{fault.strerror or fault}{where}"
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return MscliError(Code.DISK_FULL, text, "Free disk space there, then try again; nothing was lost.")
    return MscliError(Code.FILE, text, "Check that the path exists and that this user may read and write it.")


def _own(fault: BaseException) -> MscliError:
    """A fault of mscli's own: the traceback goes to a file, not to the user's terminal."""
    import traceback  # 7 ms that nobody needs who has no fault to report

    text = "".join(traceback.format_exception(fault))
    if os.environ.get("MSCLI_DEBUG") and sys.stderr:
        sys.stderr.write(text)
    kept = places().state / "last-fault.txt"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(text)
    except OSError:
        return MscliError(Code.INTERNAL, f"internal error: {fault!r}", "Run it again with MSCLI_DEBUG=1.")
    return MscliError(Code.INTERNAL, f"internal error: {fault!r}", f"The details are in {kept}")
