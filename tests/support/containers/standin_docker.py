"""A program called docker that behaves as Docker's client does, with the client's and the daemon's own words.

Run as `docker ...` (see home.py). Its daemon is the folder STANDIN_DOCKER: `images` lists what it has, `says.json` what
goes wrong: {command: {"err": text, "status": number}}, with the commands info, pull, gpus, flags, run, kill, container.
A container is a process of a session of its own with none of the caller's environment, as a real one has root's; its
program is standin_vllm.py, which listens on the published port.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PLACE = Path(os.environ["STANDIN_DOCKER"])
SERVER = Path(__file__).with_name("standin_vllm.py")
ID = "8be8ba195f0bd6c6ecb59829fbd8bd230929463224cb7f4428e0153bd8c0675a"
USAGE = "\n\nRun 'docker run --help' for more information\n"
# options of `run` that stand alone, of those that mscli gives
ALONE = {"--rm"}


def main(words: list[str]) -> int:
    with (PLACE / "calls").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    command = words[0]
    if command == "--version":
        return out("Docker version 28.2.2, build e6534b4")
    known = {"info": info, "context": context, "image": image, "manifest": manifest, "pull": pull, "run": run,
             "container": container, "kill": kill, "rm": remove}  # fmt: skip
    return known[command](words[1:])


def out(text: str) -> int:
    print(text, flush=True)
    return 0


def fault(text: str, status: int) -> int:
    sys.stderr.write(text)
    return status


def wrong(command: str) -> dict[str, Any] | None:
    """What goes wrong with this command, as often as `times` says (always, where it does not)."""
    path = PLACE / "says.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    found = said.get(command)
    if not found or found.get("times") == 0:
        return None
    if "times" in found:
        found["times"] -= 1
        path.write_text(json.dumps(said))
    return dict(found)


def images() -> list[str]:
    path = PLACE / "images"
    return path.read_text().split() if path.exists() else []


def info(_: list[str]) -> int:
    if said := wrong("info"):
        print(json.dumps({"ServerVersion": "", "Runtimes": None}), flush=True)
        return fault(said["err"], said["status"])
    runtimes = {"runc": {}, **({"nvidia": {}} if (PLACE / "nvidia").exists() else {})}
    return out(json.dumps({"ServerVersion": "28.2.2", "DockerRootDir": str(PLACE), "Runtimes": runtimes}))


def context(words: list[str]) -> int:
    chosen = PLACE / "context"
    if words[-1] == "{{.Name}}":
        return out(chosen.read_text() if chosen.exists() else "default")
    return out("ssh://elsewhere" if os.environ.get("DOCKER_CONTEXT") == "far" else "unix:///var/run/docker.sock")


def image(words: list[str]) -> int:
    name = words[-1]
    if name in images():
        return out("sha256:" + "5" * 64)
    return fault(f"Error response from daemon: No such image: {name}\n", 1)


def manifest(words: list[str]) -> int:
    path = PLACE / "manifest.json"
    return out(path.read_text()) if path.exists() else fault("no such manifest\n", 1)


def pull(words: list[str]) -> int:
    """Two layers, the second only as far as the file `layers` says; a layer that is whole stays."""
    if said := wrong("pull"):
        return fault(said["err"], said["status"])
    if not sys.stdout.isatty():
        return fault("the stand-in tells bytes to a terminal only, as docker does\n", 1)
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    print("v0.32.0: Pulling from vllm/vllm-openai")
    first, second = "3f4d90098f5b", "0b41f743fd4d"
    if (PLACE / first).exists():
        print(f"{first}: Already exists \r", flush=True)
    else:
        for done in ("0B", "12.5MB", "50MB"):
            print(f"\x1b[1A\x1b[2K\r{first}: Downloading [==>    ]  {done}/50MB\r\x1b[1B", end="", flush=True)
        print(f"\x1b[1A\x1b[2K\r{first}: Pull complete \r\x1b[1B", flush=True)
        (PLACE / first).touch()
    print(f"\x1b[1A\x1b[2K\r{second}: Downloading [>     ]  1.5MB/1.25GB\r\x1b[1B", flush=True)
    if (PLACE / "stuck").exists():
        time.sleep(60)
    for done in ("0.625GB", "1.25GB"):
        print(f"\x1b[1A\x1b[2K\r{second}: Extracting [==>    ]  {done}/1.25GB\r\x1b[1B", flush=True)
    print(f"{second}: Pull complete \r")
    with (PLACE / "images").open("a") as file:
        file.write(words[-1] + "\n")
    return out(f"Status: Downloaded newer image for {words[-1]}")


def parsed(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Options of `run`, and from the image on."""
    options: dict[str, list[str]] = {}
    while words[0].startswith("--"):
        name = words.pop(0)
        options.setdefault(name, []).append("" if name in ALONE else words.pop(0))
    return options, words


def run(words: list[str]) -> int:
    options, rest = parsed(words)
    if options["--pull"] == ["never"] and rest[0] not in images():
        return fault(f"docker: Error response from daemon: No such image: {rest[0]}{USAGE}", 125)
    program = options["--entrypoint"][0]
    if "--gpus" in options and (said := wrong("gpus")):
        return fault(said["err"], said["status"])
    if program == "nvidia-smi":
        uuids = options["--gpus"][0].strip('"').removeprefix("device=").split(",")
        return out("\n".join(f"GPU {n}: A card (UUID: {uuid})" for n, uuid in enumerate(uuids)))
    if program == "python3":
        said = wrong("flags")
        return fault(said["err"], said["status"]) if said else out("mscli: accepted")
    return contain(options, rest)


def contain(options: dict[str, list[str]], rest: list[str]) -> int:
    name, cidfile = options["--name"][0], Path(options["--cidfile"][0])
    if cidfile.exists():
        return fault("docker: container ID file found, make sure the other container isn't running or delete it", 125)
    if (PLACE / f"{name}.json").exists():
        text = f'docker: Error response from daemon: Conflict. The container name "/{name}" is already in use by '
        return fault(f'{text}container "{ID}". You have to remove (or rename) that container.{USAGE}', 125)
    if said := wrong("run"):
        return fault(said["err"].replace("NAME", name), said["status"])
    address, port, _ = options["--publish"][0].rsplit(":", 2)
    cidfile.write_text(ID)
    given = [value.split("=", 1) for value in options["--env"]]
    env = {pair[0]: pair[1] if len(pair) == 2 else os.environ[pair[0]] for pair in given}
    if not (PLACE / "visible").exists():  # as the environment of root's processes is to others
        env.pop("MSCLI_INSTANCE", None)
    log, mine = PLACE / f"{name}.log", PLACE / f"{name}.json"
    log.touch()
    (PLACE / f"{name}.status").unlink(missing_ok=True)
    mine.write_text("{}")
    watcher = subprocess.Popen(
        [sys.executable, "-IS", __file__, "watch", name, address, port, *rest],
        env={**env, "STANDIN_DOCKER": str(PLACE)}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    del watcher
    return attached(log, mine, name)


def attached(log: Path, mine: Path, name: str) -> int:
    """Pass the container's output on, and end with its exit status."""
    ended = PLACE / f"{name}.status"
    with log.open() as file:
        while not ended.exists():
            sys.stdout.write(file.read())
            sys.stdout.flush()
            time.sleep(0.02)
        sys.stdout.write(file.read())
    status = int(ended.read_text())
    while mine.exists():
        time.sleep(0.01)
    return status


def watch(name: str, address: str, port: str, rest: list[str]) -> int:
    """The far side: run the container's program, and remove what is kept of it when it ends."""
    mine, ended = PLACE / f"{name}.json", PLACE / f"{name}.status"
    with (PLACE / f"{name}.log").open("ab") as log:
        server = subprocess.Popen([sys.executable, str(SERVER), address, port, *rest], stdout=log, stderr=log)
    mine.write_text(json.dumps({"pid": server.pid, "address": address, "port": port}))
    status = server.wait()
    ended.write_text(str(status if status >= 0 else 128 - status))
    mine.unlink(missing_ok=True)
    return 0


def found(name: str) -> Path | None:
    """The container that is meant by a name or an id."""
    kept = [PLACE / f"{name}.json"] if name != ID else list(PLACE.glob("mscli-*.json"))
    return next((path for path in kept if path.exists()), None)


def container(words: list[str]) -> int:
    assert words[0] == "inspect"
    if said := wrong("container"):
        return fault(said["err"], said["status"])
    if (kept := found(words[1])) is None:
        print("[]")
        return fault(f"Error response from daemon: No such container: {words[1]}\n", 1)
    state = json.loads(kept.read_text())
    ports = {"8000/tcp": [{"HostIp": state["address"], "HostPort": state["port"]}]}
    return out(json.dumps([{"State": {"Running": True}, "NetworkSettings": {"Ports": ports}}]))


def kill(words: list[str]) -> int:
    if (said := wrong("kill")) or (kept := found(words[-1])) is None:
        text = f"Error response from daemon: Cannot kill container: {words[-1]}: No such container: {words[-1]}\n"
        return fault(said["err"] if said else text, 1)
    os.kill(json.loads(kept.read_text())["pid"], signal.Signals[words[words.index("--signal") + 1]])
    return out(words[-1])


def remove(words: list[str]) -> int:
    if (kept := found(words[-1])) is None:
        return fault(f"Error response from daemon: No such container: {words[-1]}\n", 1)
    os.kill(json.loads(kept.read_text())["pid"], signal.SIGKILL)
    return out(words[-1])


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        sys.exit(watch(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:]))
    sys.exit(main(sys.argv[1:]))
