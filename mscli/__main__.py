"""`python -m mscli` and the console script: the same program."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the program with this process's arguments and exit with its code."""
    try:
        from mscli.cli.main import main

        code = main()
    except KeyboardInterrupt:  # Ctrl-C while the modules of the program itself were imported
        from mscli.cli.main import interrupted

        code = interrupted()
    sys.exit(code)


if __name__ == "__main__":
    run()
