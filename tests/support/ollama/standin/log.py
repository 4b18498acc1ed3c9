"""Log lines in Ollama's format."""

import sys
import time


def log(level: str | None, source: str, message: str, **values: object) -> None:
    """`level` None: a line that llama-server wrote."""
    if level is None:
        line = message
    else:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        quoted = f'"{message}"' if " " in message else message
        words = [f'{name}="{value}"' if " " in str(value) else f"{name}={value}" for name, value in values.items()]
        line = " ".join([f"time={stamp} level={level} source={source} msg={quoted}", *words])
    print(line, file=sys.stderr, flush=True)
