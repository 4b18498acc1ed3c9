#!/usr/bin/env python3
"""A program called llama-server that does what the folder SERVER_ORDERS says, by files that a test makes there.

ready: it answers 200, before that 503. deaf: it does not listen as long as the file is there. die: it ends with the
exit status in the file. eat: the process whose pid is in the file takes memory until it is killed. say: what it says
first. stubborn: it ignores SIGINT and SIGTERM. Each start leaves a file `started.PID` there. To whoever chats it says
"hello".
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path

ORDERS = Path(os.environ["SERVER_ORDERS"])
CHAT = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
    b'{"role":"assistant","content":"hello"},"finish_reason":null}]}\n\n'
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


def main() -> None:
    if "--version" in sys.argv:
        print("version: 9999 (abcdef)", file=sys.stderr)
        return
    if (ORDERS / "stubborn").exists():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (ORDERS / f"started.{os.getpid()}").touch()
    print("main: loading model", flush=True)
    if (ORDERS / "say").exists():
        print((ORDERS / "say").read_text(), flush=True)
    threading.Thread(target=obey, daemon=True).start()
    while (ORDERS / "deaf").exists():
        threading.Event().wait(0.02)
    try:
        server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
    except OSError as fault:
        sys.exit(f"couldn't bind HTTP server socket: {fault.strerror}")
    with server:
        while True:
            link, _ = server.accept()
            threading.Thread(target=answer, args=(link,), daemon=True).start()


def obey() -> None:
    held = []
    while not (ORDERS / "die").exists():
        threading.Event().wait(0.02)
        while (ORDERS / "eat").exists() and (ORDERS / "eat").read_text() == str(os.getpid()):
            held.append(bytearray(2**24))
    print("main: died as it was told", flush=True)
    os._exit(int((ORDERS / "die").read_text()))


def answer(link: socket.socket) -> None:
    status = b"200 OK" if (ORDERS / "ready").exists() else b"503 Loading"
    asked, said = link.recv(65536), (b"text/plain", b"ok")
    if asked.startswith(b"POST") and status == b"200 OK":
        said = (b"text/event-stream", CHAT)
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError):
        link.sendall(head % (status, said[0], len(said[1])) + said[1])
        link.shutdown(socket.SHUT_WR)
        while link.recv(65536):  # what is closed with something unread is reset, and the answer with it
            continue
    link.close()


if __name__ == "__main__":
    main()
