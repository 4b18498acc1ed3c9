"""`python -m mscli` and the console script: the same program."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Any, NoReturn

# So many new objects before Python looks for unused ones: the imports of a command make fewer, and all are used.
_OBJECTS = 50_000


def program() -> NoReturn:
    """`run` as a process of its own, which is gone as soon as all is done.

    Python would first free every object one by one: 30 ms in which `mscli up` keeps its user waiting. It still does so
    where a thread is to be waited for.
    """
    gc.set_threshold(_OBJECTS)
    try:
        run()
        sys.exit(0)
    except SystemExit as end:
        import threading  # what starts a thread or a process has it already

        awaited = [thread for thread in threading.enumerate() if not thread.daemon]
        if not isinstance(end.code, int) or awaited != [threading.main_thread()] or not _written():
            raise
        atexit._run_exitfuncs()
        os._exit(end.code)


def _written() -> bool:
    """Whether nothing is left in the buffers of standard output and standard error."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return False
    return True


def run() -> None:
    """Run the program with this process's arguments and exit with its code."""
    sys.unraisablehook = _heard_again
    try:
        if sys.argv[1:2] == ["__complete"]:  # each TAB in a shell: only what it needs is imported
            from mscli.cli.completion import answer

            answer(sys.argv[2:])
            return
        from mscli.cli.main import main

        code = main()
    except (KeyboardInterrupt, RuntimeError) as fault:  # Ctrl-C while the program's own modules were imported
        # Python up to 3.11 makes a RuntimeError of one that comes while a class is made.
        if isinstance(fault, RuntimeError) and not isinstance(fault.__cause__, KeyboardInterrupt):
            raise
        from mscli.cli.main import interrupted

        code = interrupted()
    # Python remembers a Ctrl-C that came inside the `exec` by which a dataclass is made, and would then end by
    # SIGINT in place of this exit code. The next `exec` makes it forget.
    exec("")
    sys.exit(code)


def _heard_again(dropped: Any) -> None:
    """Python prints and drops a Ctrl-C that comes while it calls back by itself: after a fork, at an object's end. It
    is sent once more, a moment later."""
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
        return
    import signal
    import threading

    again = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()


if __name__ == "__main__":
    program()
