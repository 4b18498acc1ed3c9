"""What the gateway costs: `python benchmarks/gateway.py PLAIN_URL GATEWAY_URL MODEL`, in front of one engine.

Asks both in turn for streams of the same reply, and tells the added milliseconds to the first event and per event, as
medians over the rounds. PLAIN_URL: of the engine's own port, GATEWAY_URL: of the instance, both without /v1. For
Ollama the plain side is /api/chat, which is what the gateway asks. `--pid`: of the gateway, for its memory and for the
CPU time that it takes, which other work on the machine changes less: of streams cut after one token and of whole ones,
whose difference is told per event.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import httpx

ROUNDS = 30
MESSAGES = [{"role": "user", "content": "hello"}]


def stream(client: httpx.Client, url: str, model: str, **more: int) -> tuple[float, float, int]:
    """Seconds to the first event, seconds from then to the last, and the number of events."""
    begun, times = time.perf_counter(), []
    with client.stream("POST", url, json={"model": model, "messages": MESSAGES, "stream": True, **more}) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line:
                times.append(time.perf_counter())
    return times[0] - begun, times[-1] - times[0], len(times)


def cpu_s(pid: int) -> float:
    """Seconds that a process has had on a CPU, all its threads together."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def cpu_cost(client: httpx.Client, url: str, model: str, pid: int, rounds: int) -> dict[str, float]:
    """CPU milliseconds of the gateway: of a stream with one token, and per further event."""
    spent, events = [], []
    for more in ({"max_tokens": 1}, {}):
        begun = cpu_s(pid)
        seen = [stream(client, url, model, **more)[2] for _ in range(rounds)]
        spent.append((cpu_s(pid) - begun) * 1e3 / rounds)
        events.append(statistics.mean(seen))
    per_event = (spent[1] - spent[0]) / (events[1] - events[0])
    return {"cpu_ms_first": round(spent[0], 2), "cpu_ms_per_event": round(per_event, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plain")
    parser.add_argument("gateway")
    parser.add_argument("model")
    parser.add_argument("--key")
    parser.add_argument("--native", action="store_true", help="the plain side is Ollama's /api/chat")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--pid", type=int)
    options = parser.parse_args()
    urls = {
        "plain": options.plain + ("/api/chat" if options.native else "/v1/chat/completions"),
        "gateway": options.gateway + "/v1/chat/completions",
    }
    seen: dict[str, list[tuple[float, float, int]]] = {name: [] for name in urls}
    headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
    with httpx.Client(timeout=60, headers=headers, trust_env=False) as client:
        for url in urls.values():
            stream(client, url, options.model)  # warm
        for _ in range(options.rounds):
            for name, url in urls.items():
                seen[name].append(stream(client, url, options.model))
    first = {name: statistics.median(each[0] for each in runs) * 1e3 for name, runs in seen.items()}
    rest = {
        name: statistics.median(each[1] / max(each[2] - 1, 1) for each in runs) * 1e3 for name, runs in seen.items()
    }
    told: dict[str, object] = {
        "rounds": options.rounds,
        "first_ms": first,
        "added_to_first_ms": round(first["gateway"] - first["plain"], 2),
        "per_event_ms": rest,
        "added_per_event_ms": round(rest["gateway"] - rest["plain"], 3),
    }
    if options.pid:
        with httpx.Client(timeout=60, headers=headers, trust_env=False) as client:
            told |= cpu_cost(client, urls["gateway"], options.model, options.pid, options.rounds)
        status = Path(f"/proc/{options.pid}/status").read_text().splitlines()
        told["gateway_rss_mb"] = next(int(line.split()[1]) / 1e3 for line in status if line.startswith("VmRSS"))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
