"""Weights in the store of a service, whose server runs as another user: asked of the stand-in, and of a real Ollama
where one is on PATH. systemd is played: a systemctl that names the user and its folder."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support.ollama.standins import STANDIN
from support.ollama.tiny import give, hashes, loaded, write_profile
from support.run_mscli import Ran, call

SERVICE_UID = 65534
# Root that may read what root owns, and what everybody may read: a user as the store of another user sees it, for whom
# the Python of root's home can be run.
AS_A_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--")


@dataclass(frozen=True)
class Service:
    """A server of another user that has the model, and a user of mscli. `url`: the service's server; `user`: the home
    of the one who calls mscli."""

    store: Path
    url: str
    user: Path
    env: Mapping[str, str]

    def mscli(self, *args: str) -> Ran:
        return call(*args, env=self.env, through=AS_A_USER)

    def files(self) -> dict[str, tuple[str, int, int]]:
        """Every file of the store: its hash, its owner, and when it was changed."""
        told = {path: (digest, Path(path).stat()) for path, digest in hashes(self.store).items()}
        return {path: (digest, stat.st_uid, stat.st_mtime_ns) for path, (digest, stat) in told.items()}

    def copies(self) -> list[Path]:
        """What the user has of the weights: files of their size that are no links."""
        own = (path for path in self.user.rglob("*") if path.is_file() and not path.is_symlink())
        return [path for path in own if path.stat().st_size > 1_000_000]


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.ollama)])
def service(request: pytest.FixtureRequest, tmp_path: Path, user_env: dict[str, str]) -> Iterator[Service]:
    real = shutil.which("ollama")
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can play two users, with setpriv")
    if request.param == "real" and real is None:
        pytest.skip("no ollama binary on PATH")
    home = tmp_path / "service"
    with socket.create_server(("127.0.0.1", 0)) as free:
        unit = {"HOME": str(home), "OLLAMA_HOST": f"127.0.0.1:{free.getsockname()[1]}"}
    argv = [str(real)] if request.param == "real" else [sys.executable, "-S", str(STANDIN)]
    with (tmp_path / "service.log").open("wb") as log:
        env = {"PATH": os.environ["PATH"], "OLLAMA_NO_CLOUD": "1", **unit}
        server = subprocess.Popen([*argv, "serve"], env=env, stdout=log, stderr=log)
    user_env["PATH"] = f"{_programs(tmp_path, argv, unit, server.pid)}:{user_env['PATH']}"
    write_profile(Path(user_env["MSCLI_HOME"]) / "config" / "profiles")
    url = f"http://{unit['OLLAMA_HOST']}"
    try:
        give(url)
        for path in (home, *home.rglob("*")):
            os.chown(path, SERVICE_UID, SERVICE_UID)
        yield Service(home / ".ollama" / "models", url, tmp_path / "home", user_env)
    finally:
        call("down", "--all", env=user_env, through=AS_A_USER)
        server.terminate()
        server.wait(30)


def _programs(folder: Path, argv: list[str], unit: Mapping[str, str], pid: int) -> Path:
    """The folder of `ollama`, and of a systemctl that tells of the service."""
    told = {
        "LoadState": "loaded", "ActiveState": "active", "MainPID": str(pid), "User": "nobody",
        "Environment": f"HOME={unit['HOME']} OLLAMA_HOST={unit['OLLAMA_HOST']}",
    }  # fmt: skip
    lines = "".join(f"echo '{key}={value}'\n" for key, value in told.items())
    words = " ".join(f'"{word}"' for word in argv)
    scripts = {"ollama": f'#!/bin/sh\nexec {words} "$@"\n', "systemctl": f"#!/bin/sh\n{lines}"}
    place = folder / "programs"
    place.mkdir()
    for name, script in scripts.items():
        (place / name).write_text(script)
        (place / name).chmod(0o755)
    return place


def test_weights_of_a_service_are_borrowed_without_a_byte_fetched_or_changed(service: Service) -> None:
    before = service.files()
    done = service.mscli("up", "tiny", "--yes", "--json")
    assert done.code == 0, done.out + done.err
    url = str(done.data["instance"]["base_url"]).removesuffix("/v1")
    assert loaded(url) == {"mscli/tiny:latest": 4096}
    assert service.mscli("chat", "hello").code == 0
    shown = service.mscli("status", "--json").data["instances"][0]
    assert (shown["state"], shown["note"]) == ("ready", None)
    told = httpx.post(f"{url}/api/show", json={"model": "mscli/tiny"}, timeout=30).json()["parameters"].split()
    assert {"num_ctx", "4096", "num_predict"} <= set(told)
    assert loaded(service.url) == {}, "the service's own server was not used"
    assert service.copies() == []
    assert service.mscli("down", "--purge").code == 0
    assert service.files() == before


def test_a_store_that_may_not_be_read_is_said_before_the_download_with_what_opens_it(service: Service) -> None:
    before = service.files()
    service.store.parent.chmod(0o700)
    done = service.mscli("up", "tiny", "--yes")
    said = " ".join(done.err.split())
    assert done.code != 0, "there is no registry here that has the model"
    assert f"the models folder {service.store} is not readable by this user" in said
    assert said.index("is not readable by this user") < said.index("Could not pull tiny:q8")
    opening = re.search(r"To open it: (sudo chmod .*? && sudo chmod -R o\+rX \S+)", said)
    assert opening is not None
    subprocess.run(["sh", "-c", opening[1].replace("sudo ", "")], check=True)
    assert service.mscli("up", "tiny", "--yes").code == 0
    assert service.copies() == []
    assert {path: digest for path, (digest, _, _) in service.files().items()} == {
        path: digest for path, (digest, _, _) in before.items()
    }
