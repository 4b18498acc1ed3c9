"""The program: the command tree, and the one place where faults become messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from mscli import __version__
from mscli.cli.screen import Screen
from mscli.errors import Code, Exit, MscliError
from mscli.paths import places

# Typer carries its own Click in newer versions: its exceptions are reached through Typer, never by `import click`.
_USAGE_ERROR = typer.BadParameter.__mro__[1]
_CLICK_ERROR = typer.BadParameter.__mro__[2]

# One module of this folder each, in the order of the help.
VERBS = (
    *("up", "down", "status", "logs", "restart", "chat", "check", "env"),
    *("gpus", "plan", "profiles", "pull", "weights", "engines", "doctor"),
)


def tree(verbs: Sequence[str] = VERBS) -> typer.Typer:
    """The program with the given verbs. Building all of them takes longer than `mscli status` needs to answer."""
    app = typer.Typer(
        name="mscli",
        help="Run Mistral Small 3.1 24B and Magistral Small on your own GPUs: plan, start, chat, check, stop.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for verb in verbs:
        import_module(f"mscli.cli.{verb}").register(app)
    return app


def _root(
    ctx: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and stop.")
) -> None:
    if version:
        sys.stdout.write(f"mscli {__version__}\n")
    elif ctx.invoked_subcommand is None:
        sys.stdout.write(ctx.get_help() + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Never raises; every fault is reported on the screen."""
    args = ["--events" if arg == "--json=stream" else arg for arg in (sys.argv[1:] if argv is None else argv)]
    own = args[: args.index("--")] if "--" in args else args
    screen = Screen(next((arg for arg in own if not arg.startswith("-")), ""), bool({"--json", "--events"} & set(own)))
    verbs = args[:1] if args and args[0] in VERBS else VERBS
    try:
        outcome = typer.main.get_command(tree(verbs)).main(args, prog_name="mscli", standalone_mode=False, obj=screen)
        return outcome if isinstance(outcome, int) else Exit.DONE
    except BrokenPipeError:  # the reader had enough (`mscli logs | head`): not our fault, not worth a word
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except SystemExit as left:  # how rich says that the reader had enough
        if isinstance(left.__context__, BrokenPipeError):
            return Exit.DONE
        return left.code if isinstance(left.code, int) else Exit.FAILED
    except BaseException as fault:  # the one boundary: nothing passes it as a traceback
        error = _as_error(fault)
        screen.error(error)
        return error.exit_code


def _as_error(fault: BaseException) -> MscliError:
    if isinstance(fault, MscliError):
        return fault
    if isinstance(fault, (KeyboardInterrupt, typer.Abort)):
        return MscliError(Code.INTERRUPTED, "interrupted")
    if isinstance(fault, _USAGE_ERROR):
        return _usage(fault)
    if isinstance(fault, _CLICK_ERROR):
        return MscliError(Code.FILE, str(fault))
    if isinstance(fault, OSError):
        return _machine(fault)
    return _own(fault)


def _usage(fault: BaseException) -> MscliError:
    ctx = getattr(fault, "ctx", None)
    path = getattr(ctx, "command_path", "mscli")
    text = fault.format_message() if hasattr(fault, "format_message") else str(fault)
    return MscliError(Code.USAGE, text, f"See: {path} --help")


def _machine(fault: OSError) -> MscliError:
    where = f": {fault.filename}" if fault.filename else ""
    text = f"{fault.strerror or fault}{where}"
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return MscliError(Code.DISK_FULL, text, "Make room there, then try again; nothing was lost.")
    return MscliError(Code.FILE, text, "Check that the path exists and that this user may read and write it.")


def _own(fault: BaseException) -> MscliError:
    """A fault of mscli's own: the traceback goes to a file, not to the user's terminal."""
    import traceback  # 7 ms that nobody needs who has no fault to report

    text = "".join(traceback.format_exception(fault))
    if os.environ.get("MSCLI_DEBUG"):
        sys.stderr.write(text)
    kept = places().state / "last-fault.txt"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(text)
    except OSError:
        return MscliError(Code.INTERNAL, f"a fault of mscli's own: {fault!r}", "Run it again with MSCLI_DEBUG=1.")
    return MscliError(Code.INTERNAL, f"a fault of mscli's own: {fault!r}", f"The details are in {kept}")
