"""Images however they are named; what is larger than the model takes is made smaller, and that is told."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image as pillow

from mscli.chat.image import LONGEST_EDGE, from_bytes, load
from mscli.errors import Code, MscliError


def picture(kind: str = "PNG", size: tuple[int, int] = (300, 200)) -> bytes:
    out = BytesIO()
    pillow.new("RGB", size, "red").save(out, kind)
    return out.getvalue()


def sent(data_url: str) -> tuple[str, bytes]:
    head, _, body = data_url.partition(";base64,")
    return head.removeprefix("data:"), base64.b64decode(body)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web site with the files of the test's folder."""
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_small_image_goes_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(picture(kind))
    image = load(str(path))
    assert sent(image.data_url) == (f"image/{kind.lower()}", path.read_bytes())
    assert (image.size, image.note) == ((300, 200), None)


def test_the_same_image_by_path_address_data_url_and_base64(tmp_path: Path, site: str) -> None:
    path = tmp_path / "a b.png"
    path.write_bytes(picture())
    text = base64.b64encode(path.read_bytes()).decode()
    for named in (str(path), f"{site}/a%20b.png", f"data:image/png;base64,{text}", text):
        assert sent(load(named).data_url)[1] == path.read_bytes()


@pytest.mark.parametrize(("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/png")])
def test_a_large_image_is_shrunk_and_that_is_told(kind: str, media_type: str) -> None:
    image = from_bytes("big", picture(kind, (4000, 1000)))
    told, content = sent(image.data_url)
    with pillow.open(BytesIO(content)) as opened:
        assert (told, opened.size) == (media_type, (LONGEST_EDGE, 385))
    if kind != "WEBP":
        assert image.note == "image big: 4000x1000 shrunk to 1540x385"
    assert image.size == (LONGEST_EDGE, 385)
    assert image.tokens == 14 * 56


def test_without_pillow_a_large_image_goes_as_it_is_and_that_is_told(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(picture("PNG", (2000, 1000)))
    code = (
        "import sys; sys.modules['PIL'] = None\nfrom mscli.chat.image import load\n"
        f"made = load({str(path)!r}); print(len(made.data_url), made.size, made.note)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "(2000, 1000)" in done
    assert "the engine shrinks it" in done


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("/no/such/file.png", "No such file"),
        ("data:image/png;base64,@@@", "not valid base64"),
        ("data:image/png;base64," + base64.b64encode(b"hello").decode(), "is not a PNG"),
        ("http://127.0.0.1:1/a.png", "no connection"),
        ("a\0b", "null byte"),
        ("data:image/png;base64," + base64.b64encode(picture("PNG", (4000, 10))[:80]).decode(), "cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_in_words(named: str, words: str) -> None:
    with pytest.raises(MscliError) as raised:
        load(named)
    assert raised.value.code == Code.FILE
    assert words in raised.value.message
    assert raised.value.hint


def test_a_page_that_is_not_there_is_refused(site: str) -> None:
    with pytest.raises(MscliError, match="HTTP 404"):
        load(f"{site}/nothing.png")
