"""`ollama serve` and `ollama --version` of the stand-in."""

import os
import sys

from scene import Scene
from server import serve


def version(scene: Scene) -> None:
    """Prints as Ollama does: the server's version if one answers, and its own where that is another."""
    import json
    from urllib.request import ProxyHandler, build_opener

    host = os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
    own = scene["client_version"]
    try:
        with build_opener(ProxyHandler({})).open(f"http://{host}/api/version") as answer:
            running = json.load(answer)["version"]
        print(f"ollama version is {running}")
    except (OSError, ValueError):
        running = None
        print("Warning: could not connect to a running Ollama instance")
    if running != own:
        print(f"Warning: client version is {own}")


if __name__ == "__main__":
    told = Scene(os.environ.get("OLLAMA_STANDIN"))
    if sys.argv[1:] == ["serve"]:
        serve(told)
    elif sys.argv[1:] in (["--version"], ["-v"]):
        version(told)
    else:
        sys.exit(f"Error: unknown command {sys.argv[1:]}")
