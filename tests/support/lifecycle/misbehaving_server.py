"""An HTTP server that misbehaves as engines do; run as a real process by the tests.

    python misbehaving_server.py PORT [--load S] [--die-after S] [--exit N] [--silent] [--mute] [--busy] [--say LINE]

--load: 503 for so long, then 200. --die-after: exit with --exit. --silent: accepts and never answers.
--mute: listens late and logs nothing, uses no CPU. --busy: as --mute, but burns CPU. --say: writes a line first.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--load", type=float, default=0.0)
    parser.add_argument("--die-after", type=float)
    parser.add_argument("--exit", type=int, default=1)
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--mute", action="store_true")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--say")
    args = parser.parse_args()
    if args.say:
        print(args.say, flush=True)
    if args.die_after is not None:
        threading.Timer(args.die_after, lambda: os._exit(args.exit)).start()
    if args.mute or args.busy:
        while args.busy:
            sum(range(10_000))
        threading.Event().wait()
    serve(args.port, time.monotonic() + args.load, args.silent)


def serve(port: int, ready_at: float, silent: bool) -> None:
    print("loading the model", flush=True)
    kept = []
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            link, _ = server.accept()
            if silent:
                kept.append(link)
                continue
            link.recv(4096)
            status = "200 OK" if time.monotonic() > ready_at else "503 Service Unavailable"
            link.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".encode())
            link.close()


if __name__ == "__main__":
    sys.exit(main())
