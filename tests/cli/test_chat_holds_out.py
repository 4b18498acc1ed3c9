"""Whatever is pasted, and whatever a server sends: no traceback, and the terminal is as it was."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.chat.scripted import reply, scripted
from support.chat.streams import chunk, stopped
from support.run_mscli import Mscli
from support.terminal import on_a_terminal
from support.tmux import in_tmux, needs_tmux

from mscli.catalog.sampling import Sampling
from mscli.chat.message import user
from mscli.chat.reply import Target, ask
from mscli.chat.stream import deltas
from mscli.errors import MscliError

EVIL = (
    "\x1b]0;title\x07", "\x1b]52;c;cm0=\x1b\\", "\x1b[2J", "\x1b[31m", "\x9b31m", "\x1bc", "\x1bP1$r\x1b\\", "\r",
    "\x08",    "\x7f", "\x00", "\u202e", "&#27;[2J", "`\x1b[2J`", "\x1b[?1049h", "[x](\x1b]8;;y\x07)",
)  # fmt: skip
# What mscli itself writes while it shows a reply: styles, the cursor up, the rest of the screen or line cleared.
OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[[0-9]+A|\x1b\[J|\x1b\[K|\r\n|\r")


def pty_output(env: dict[str, str], *args: str) -> str:
    with on_a_terminal("chat", "hello", *args, env=env) as screen:
        assert screen.ended() == 0, screen.shown
        return screen.raw


@pytest.mark.parametrize("args", [(), ("--raw",), ("--think",)])
def test_control_sequences_of_a_model_never_reach_the_terminal(
    home: Path, user_env: dict[str, str], args: tuple[str, ...]
) -> None:
    nasty = "# Title " + " and ".join(EVIL) + "\n\n```sh\n" + "".join(EVIL) + "\n```\n\n- " + "\n- ".join(EVIL) + "\n"
    with scripted(home, reply(*nasty, thought=EVIL)):
        shown = pty_output(user_env, *args)
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", OWN.sub("", shown)) == []
    assert "Title" in shown


def test_a_reply_of_a_megabyte_in_one_line(mscli: Mscli, home: Path, user_env: dict[str, str]) -> None:
    line = "word " * 200_000
    pieces = [line[at : at + 5000] for at in range(0, len(line), 5000)]
    with scripted(home, reply(*pieces), reply(line)):
        assert mscli("chat", "hello").out == f"{line}\n"
        shown = pty_output(user_env)
    assert OWN.sub("", shown).count("word ") == 200_000


def test_bytes_that_are_no_text_are_marked_and_no_fault(mscli: Mscli, home: Path, user_env: dict[str, str]) -> None:
    broken = [chunk({"content": "a MARK b"}).replace("MARK", "\udcff\udcfe\udcc3")]
    with scripted(home, [*broken, *reply("!")]):
        assert mscli("chat", "hello").out == "a \ufffd\ufffd\ufffd b!\n"
        assert "a \ufffd\ufffd\ufffd b!" in pty_output(user_env)


STREAM = stopped(chunk({"content": "Grüße, 世界 \U0001f600"}), ": ping\n\n", chunk({"content": "!"})).encode()


@pytest.mark.parametrize("body", [STREAM, STREAM.replace(b"\n", b"\r\n")], ids=["LF", "CRLF"])
def test_a_stream_that_comes_in_two_parts_is_the_same_wherever_it_is_cut(body: bytes) -> None:
    for at in range(len(body) + 1):
        assert "".join(each.text for each in deltas([body[:at], body[at:]])) == "Grüße, 世界 \U0001f600!"
    assert (
        "".join(each.text for each in deltas(body[at : at + 1] for at in range(len(body)))) == "Grüße, 世界 \U0001f600!"
    )


@pytest.fixture
def cut_short() -> Iterator[tuple[Target, list[int]]]:
    """A server that sends so many bytes of a stream as the list says, and closes."""
    lengths = [0]

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(STREAM[: lengths[0]])

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    yield Target("mine", url, None, "m", Sampling(None, None, None), False), lengths
    server.shutdown()
    server.server_close()


def test_a_stream_that_ends_at_any_byte_is_a_reply_or_a_fault_in_words(cut_short: tuple[Target, list[int]]) -> None:
    target, lengths = cut_short
    replies, faults = 0, []
    for lengths[0] in range(len(STREAM) + 1):
        try:
            replies += ask(target, [user("hi")], lambda _: None).text.endswith("!")
        except MscliError as fault:
            faults.append(fault.message)
    assert replies + len(faults) == len(STREAM) + 1
    # It is a reply once its finish_reason has come.
    assert 0 < replies < len(STREAM) - STREAM.index(b'"stop"')
    assert all(each.startswith(("mine sent no valid reply", "the connection to mine broke")) for each in faults)


@needs_tmux
@pytest.mark.parametrize("megabytes", [1, 100])
def test_a_paste_of_any_size(home: Path, user_env: dict[str, str], tmp_path: Path, megabytes: int) -> None:
    text = "0123456789 pasted\n" * (megabytes * 1_000_000 // 18)
    with (
        scripted(home, reply("Fine."), context=10**9) as model,
        in_tmux("chat", env=user_env, folder=tmp_path / "window") as window,
    ):
        window.prompt()
        window.paste(text)
        window.until("[paste 1: 999,990 characters]" if megabytes == 1 else "left out]")
        window.keys("Enter")
        if megabytes == 1:
            window.prompt("Fine.")
            assert model.messages[-1]["content"] == text.rstrip("\n") or model.messages[-1]["content"] == text
        else:
            window.prompt("no context holds it")
            assert model.asked == []
        window.keys("C-d")
        window.until("ended with 0")
