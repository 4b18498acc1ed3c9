"""The program: one command from its arguments to its exit code, and the one place where faults become messages.

`mscli status --json`, which scripts repeat every second, is answered without Typer: importing Typer alone takes longer
than all the rest of it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from mscli.cli.screen import Screen
from mscli.errors import Code, Exit, MscliError
from mscli.paths import places


def run() -> None:
    """Run the program with this process's arguments and exit with its code."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Never raises; every fault is reported on the screen."""
    args = ["--events" if arg == "--json=stream" else arg for arg in (sys.argv[1:] if argv is None else argv)]
    own = args[: args.index("--")] if "--" in args else args
    screen = Screen(next((arg for arg in own if not arg.startswith("-")), ""), bool({"--json", "--events"} & set(own)))
    try:
        return _status(screen) if args == ["status", "--json"] else _command(args, screen)
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


def _status(screen: Screen) -> int:
    from mscli.cli.instance_view import show_status
    from mscli.instances.store import Store

    return show_status(screen, Store(places()))


def _command(args: list[str], screen: Screen) -> int:
    import typer

    from mscli.cli.tree import VERBS, tree

    verbs = args[:1] if args and args[0] in VERBS else VERBS
    outcome = typer.main.get_command(tree(verbs)).main(args, prog_name="mscli", standalone_mode=False, obj=screen)
    return outcome if isinstance(outcome, int) else Exit.DONE


def _as_error(fault: BaseException) -> MscliError:
    if isinstance(fault, MscliError):
        return fault
    if isinstance(fault, KeyboardInterrupt):
        return MscliError(Code.INTERRUPTED, "interrupted")
    if isinstance(fault, OSError):
        return _machine(fault)
    return _of_typer(fault) or _own(fault)


def _of_typer(fault: BaseException) -> MscliError | None:
    """What Typer raises, or None for a fault that is not Typer's.

    Newer versions carry their own Click, so its exceptions are reached through Typer, never by `import click`.
    """
    import typer

    usage_error, click_error = typer.BadParameter.__mro__[1:3]
    if isinstance(fault, typer.Abort):
        return MscliError(Code.INTERRUPTED, "interrupted")
    if isinstance(fault, usage_error):
        path = getattr(getattr(fault, "ctx", None), "command_path", "mscli")
        text = fault.format_message() if hasattr(fault, "format_message") else str(fault)
        return MscliError(Code.USAGE, text, f"See: {path} --help")
    return MscliError(Code.FILE, str(fault)) if isinstance(fault, click_error) else None


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
