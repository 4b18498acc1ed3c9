"""`python -m mscli.lifecycle.server_guard PROGRAM ...`: a program that ends with the process that asked for it.

That process holds the other end of this one's input. When it is killed the input closes, and the program is stopped a
moment later: a server notes how far a download is when its client goes, which takes it that moment.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence

SETTLE_S = 1.0
STOP_TIMEOUT_S = 10.0
END = b"end\n"
"""What is written to the input to end the program at once."""


def main(argv: Sequence[str]) -> int:
    """Run `argv` until it ends by itself or is no longer wanted; its exit status."""
    program = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    threading.Thread(target=_stop_unwanted, args=(program,), daemon=True).start()
    return program.wait()


def _stop_unwanted(program: subprocess.Popen[bytes]) -> None:
    if sys.stdin.buffer.read() != END:
        time.sleep(SETTLE_S)
    program.terminate()
    try:
        program.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        program.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
