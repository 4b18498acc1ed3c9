"""Log lines in Ollama's format: its own go to standard error, those of requests to standard output."""

import sys
import time


def log(level: str | None, source: str, message: str, **values: object) -> None:
    """`level` None: a line that llama-server wrote."""
    if level is None:
        line = message
    else:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        quoted = f'"{message}"' if " " in message else message
        words = [f"{name}={_quoted(str(value))}" for name, value in values.items()]
        line = " ".join([f"time={stamp} level={level} source={source} msg={quoted}", *words])
    print(line, file=sys.stderr, flush=True)


def gin(status: int, method: str, path: str) -> None:
    """The line of one request."""
    stamp = time.strftime("%Y/%m/%d - %H:%M:%S")
    print(f'[GIN] {stamp} | {status} | {"46.078µs":>13} | {"127.0.0.1":>15} | {method:<8} "{path}"', flush=True)


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '\\"') + '"' if " " in value else value
