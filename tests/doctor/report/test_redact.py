"""Redaction: what is private goes wherever it stands, and what a helper needs stays as it is."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.linear_time import assert_linear

from mscli.doctor.report import redact, redact_prompts, redact_secrets
from mscli.doctor.report.redact import Private, redacted
from mscli.doctor.report.redact_prompts import without_prompts
from mscli.doctor.report.redact_secrets import without_secrets

HEALTHY = Path(__file__).parents[2] / "diagnosis" / "healthy"

PRIVATE = Private(
    secrets=("correct-horse-battery", "s3cr"),
    users=("zqalice", "Alice Quill", "root", "al"),
    homes=("/srv/people/zqalice", "/root"),
    hosts=("zqbox", "zqbox.corp.example.com", "gpu"),
)

GONE = {
    "HF_TOKEN=hf_AbCdEfGhIjKlMnOp": "hf_AbCdEf",
    "using sk-proj-abc123_DEF456 now": "abc123",
    "git clone with ghp_0123456789abcdefABCD": "0123456789",
    "github_pat_11ABCDEFG0123456789_xyz": "11ABCDEFG",
    "curl -H 'Authorization: Bearer abc.def-ghi'": "abc.def",
    "Authorization: Basic dXNlcjpodW50ZXIy": "dXNlcjpo",
    "(b'x-api-key', b'zq-key-1')": "zq-key",
    "Cookie: session=abcdef; theme=dark": "abcdef",
    "OPENAI_API_KEY: 'my own key'": "my own key",
    '{"api_key": "zq123456", "n": 1}': "zq123456",
    r"{\"api_key\": \"zq123456\", \"n\": 1}": "zq123456",
    "llama-server --api-key zq-secret --port 1": "zq-secret",
    "vllm serve --ssl-keyfile-password 'zq secret' --port 1": "zq secret",
    "DB_PASSWORD=p,w;d next": "p,w;d",
    "token: a1b2c3d4e5f6": "a1b2c3d4",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc": "eyJhbGci",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----": "MIIEpAIB",
    "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nMIIEpAIBAAKCAQEB\n": "MIIEpAIB",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ": "AAAAC3Nz",
    "https://bob:pa@ss@proxy.example.com:3128/": "pa@ss",
    "http://hub-user@127.0.0.1/x": "hub-user",
    "https://cdn.example.com/x?X-Amz-Signature=abc123&e=1": "abc123",
    "the pass is correct-horse-battery, yes": "correct-horse",
    "short s3cr here": "s3cr",
    "/home/bob/models/x.gguf": "bob",
    "/var/home/bob/models": "bob",
    "/mnt/c/Users/Bob/models": "Bob",
    r"C:\Users\Bob\models": "Bob",
    "/Users/bob/models": "bob",
    "/srv/people/zqalice/x": "people",
    "owned by ZQAlice": "ZQAlice",
    "zqalice_models are here": "zqalice",
    "by Alice Quill": "Alice",
    "al@zqbox:~$ ls": "al@",
    "on zqbox and ZQBOX.corp.example.com": "box",
    "ssh me@gpu": "@gpu",
    "mail bob.smith+x@example.co.uk": "bob.smith",
    "peer 10.1.2.3:29500 refused": "10.1.2.3",
    "from 8.8.4.4": "8.8.4.4",
    "http://192.168.7.9:11434": "192.168",
    "node ip-10-0-0-12.ec2.internal": "10-0-0-12",
    "via fe80::1ff:fe23:4567:890a%eth0": "fe80",
    "[2001:db8:85a3::8a2e:370:7334]:8000": "2001:db8",
    "GPU-5d1c0712-1111-2222-3333-444455556666": "5d1c0712",
    "MIG-5d1c0712-1111-2222-3333-444455556666": "4444",
    "MIG-GPU-5d1c0712-1111-2222-3333-444455556666/1/0": "4444",
    "link/ether 02:42:ac:11:00:02 brd": "02:42",
    "guid 02:42:ac:11:00:02:aa:bb": "02:42",
    "Serial Number : 0324518000123": "0324518",
    "data:image/png;base64,iVBORw0KGgo=": "iVBOR",
    "body " + base64.b64encode(bytes(range(256))).decode(): "AAECAwQF",
}


@pytest.mark.parametrize("text", GONE)
def test_what_is_private_goes(text: str) -> None:
    cut = redacted(text, PRIVATE)
    assert GONE[text] not in cut
    assert redacted(cut, PRIVATE) == cut, "redacting twice changes nothing more"


SHAPES = [line.split("\t") for line in Path(__file__).with_name("secret_shapes.tsv").read_text().splitlines()[1:]]


@pytest.mark.parametrize(("line", "secret"), [each[1:] for each in SHAPES], ids=[each[0] for each in SHAPES])
def test_a_secret_goes_from_every_kind_of_place(line: str, secret: str) -> None:
    text = line.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
    assert secret in text
    cut = redacted(text, Private())
    assert secret not in cut
    assert redacted(cut, Private()) == cut, "redacting twice changes nothing more"


@pytest.mark.parametrize("log", sorted(HEALTHY.glob("*.log")), ids=lambda path: str(path.stem))
def test_nothing_of_a_healthy_log_is_taken_for_a_secret(log: Path) -> None:
    text = without_prompts(log.read_text())
    assert without_secrets(text) == text


def each_of(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)


PATTERNS = [
    pytest.param(pattern, id=f"{module.__name__.rpartition('.')[2]}.{name}{place or ''}")
    for module in (redact_secrets, redact_prompts, redact)
    for name, value in sorted(vars(module).items())
    for place, pattern in enumerate(
        value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    )
    if isinstance(pattern, re.Pattern)
]


def worst(pattern: re.Pattern[str]) -> list[str]:
    """Texts to repeat without end: characters that a pattern may wait for, and the beginnings of what it finds."""
    matched = [
        found[0] for text in (*GONE, *(each[1] for each in SHAPES)) if (found := pattern.search(text)) and found[0]
    ]
    beginnings = {text[:end] for text in matched[:6] for end in {1, 2, len(text) // 2, len(text) - 1} if end > 0}
    return sorted({*" \t\\\"'-:=.,/@#[]{}a0A_%", "a-", "a.", "a:", "a=", 'a="', "://", "-A", '\\"', *beginnings})


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_reads_its_worst_input_in_linear_time(pattern: re.Pattern[str]) -> None:
    for pump in worst(pattern):
        assert_linear(pattern, pump, 8_000, noise_s=0.05, least_s=0.001)


@pytest.mark.parametrize("pump", ['"messages": [\n ', '"prompt": "', "prompt=[{'a', ", '{"content": [\\"'])
def test_values_that_nothing_ends_are_cut_in_linear_time(pump: str) -> None:
    took = []
    for size in (100_000, 400_000):
        begun = time.thread_time()
        without_prompts(pump * (size // len(pump)))
        took.append(time.thread_time() - begun)
    assert took[1] < 12 * took[0] + 0.5


def test_a_megabyte_of_anything_is_redacted_in_linear_time() -> None:
    pumps = {pump for param in PATTERNS for pump in worst(param.values[0])}
    text = "\n".join(pump * (400_000 // len(pumps) // len(pump) + 1) for pump in sorted(pumps))
    begun = time.thread_time()
    redacted(text, PRIVATE)
    short_s = time.thread_time() - begun
    redacted(text * 4, PRIVATE)
    assert time.thread_time() - begun - short_s < 8 * short_s + 0.5


KEPT = (
    "driver 580.95.05, CUDA 13.0, NVIDIA-SMI 570.124.06",
    "nvidia-cudnn-cu12==9.1.0.70",
    "nvidia-cublas-cu12         12.4.5.8",
    "cuDNN 9.1.0.70, version 12.8.1.2",
    "torch 2.9.1+cu128, vllm 0.11.0",
    "listening on 127.0.0.1:8000, [::1]:8000 and 0.0.0.0",
    "INFO 11-26 16:23:44 [core.py:58] Initializing a V1 LLM engine with config: model='mistralai/Mistral-Small-3.1'",
    "std::vector, c10::Error, at::native::(anonymous)",
    "00000000:01:00.0",
    "gpu_memory_utilization=0.9, max_num_batched_tokens=8192, max_tokens: 5",
    "VLLM_MAX_TOKENS_PER_EXPERT_FUSED_MOE_CHUNK=16384",
    "eos_token='</s>', \"bos_token\": \"<s>\", pad_token_id = 11",
    "print_info: EOS token        = 2 '</s>'",
    "prompt eval time =      12.34 ms /     5 tokens",
    'msg="completion request" images=0 prompt=1234 format=""',
    "usage: {'prompt_tokens': 12, 'completion_tokens': 4}",
    "limit_mm_per_prompt={\"image\": 4}",
    '{"error":{"code":400,"message":"the request exceeds the available context size"}}',
    "vllm serve: error: unrecognized arguments: --foo bar",
    "error: invalid argument: --cache-type-q",
    "[type=value_error, input_value='fp9', input_type=str]",
    "basic authentication is off; bearer token missing; the api key was refused",
    "--api-key-file ~/key",
    "user root may read it; root cause: gpu memory",
    "~/.cache/huggingface/hub/models--mistralai--x/snapshots/0123456789abcdef0123456789abcdef01234567/y",
    "key not found key=general.alignment default=32",
    "sha256:3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855c",
    "NCCL WARN Call to ibv_modify_qp failed with error Connection timed out",
    "password authentication failed for user, a password is required, no password given",
    "docker run --user 1000:1000 --rm vllm/vllm-openai:v0.10@sha256:0123456789abcdef serve",
    "docker login registry.example.com; mysql -p; curl -sSf -o x.sh; ssh -p 22",
    "forward pass: 12 ms, pass=1, first pass done; tokens: 512, token: 5, tokens=true",
    "SSL_KEY_FILE=/etc/ssl/key.pem KEYBOARD=us TOKENIZER=mistral TOKEN_COUNT=7",
    "non-default args: {'api_key': None, 'hf_token': None, 'ssl_keyfile': None}",
    "sk-learn-extra, npm_config_registry_and_more, xai-grok-model-name, fw_version_of_the_device",
    "auth: none, authorization is off, signature: valid, the cookie was refused, Basic usage",
    "main.cc:1234:56: error: expected ';' and key: value, map[key:value]",
    "https://huggingface.co/mistralai/Mistral-Small-3.1-24B-Instruct-2503/resolve/main/params.json",
    "secretary=ann, passenger=2, monkey=1, keynote: 5, tokenizer_mode: mistral, bypass=none",
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB",
)  # fmt: skip


@pytest.mark.parametrize("text", KEPT)
def test_what_a_helper_needs_stays(text: str) -> None:
    assert redacted(text, PRIVATE) == text


def test_paths_keep_their_tail_and_addresses_their_port() -> None:
    text = "/home/bob/models/x.gguf at 10.0.0.5:8000, GPU-5d1c0712-1111-2222-3333-444455556666"
    assert redacted(text, PRIVATE) == "~/models/x.gguf at [private ip]:8000, GPU-5d1c..."


CORE = "Zebra-7719"
REQUEST = {"model": "m", "stream": True, "temperature": 0.15}


def chat(prompt: str) -> dict[str, object]:
    return {**REQUEST, "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": prompt}]}


def parts(prompt: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": prompt}]}], **REQUEST}


WRITERS: dict[str, Callable[[str], str]] = {
    "vLLM until 0.8": lambda p: f"INFO Received request cmpl-1: prompt: {p!r}, params: SamplingParams(n=1)",
    "vLLM's details": lambda p: f"DEBUG Request x details: prompt: {p!r}, prompt_token_ids: [1, 2], shape: None.",
    "vLLM's answers": lambda p: f"INFO Generated response x: output: {p!r}, output_token_ids: [1], finish_reason: stop",
    "Python's repr of a request": lambda p: f"ChatRequest(messages={[{'role': 'user', 'content': p}]!r}, n=1)",
    "Python's repr of a prompt": lambda p: f"CompletionRequest(prompt={p!r}, model='m', n=1)",
    "llama.cpp's JSON": lambda p: f"srv  log_server_r: request:  {json.dumps(chat(p))}",
    "JSON of parts": lambda p: f"request: {json.dumps(parts(p))}",
    "JSON over lines": lambda p: json.dumps(chat(p), indent=2),
    "JSON in JSON": lambda p: json.dumps({"body": json.dumps(chat(p)), "status": 200}),
    "JSON in JSON in JSON": lambda p: json.dumps({"x": json.dumps({"body": json.dumps(parts(p))})}),
    "Python's repr of JSON": lambda p: f"body={json.dumps(chat(p))!r} status=200",
    "a dict": lambda p: f"got {chat(p)!r}",
    "Ollama's log": lambda p: f'time=1 level=DEBUG msg="chat request" images=0 prompt={json.dumps(p)} format="" n=1',
    "Ollama's body": lambda p: f"time=1 msg=x body={json.dumps(json.dumps({'prompt': p, 'n': 1}))} status=200",
    "an answer": lambda p: json.dumps({"response": p, "done": True, "eval_count": 5}),
    "a tool call": lambda p: json.dumps({"function": {"name": "f", "arguments": json.dumps({"a": p})}}),
    "tool definitions": lambda p: json.dumps({"tools": [{"type": "function", "description": p}], "n": 1}),
    "an embedding": lambda p: json.dumps({"input": ["a", p], "model": "m"}),
    "FastAPI's refusal": lambda p: repr([{"type": "string_type", "loc": ("body",), "msg": "no", "input": {"a": p}}]),
    "a request cut off": lambda p: json.dumps(chat(p))[:-12],
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
@given(before=st.text(max_size=40), after=st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_prompt_survives_however_it_is_written(writer: str, before: str, after: str) -> None:
    line = WRITERS[writer](f"{before}{CORE}{after}")
    text = f"INFO before\n{line}\nINFO after"
    cut = without_prompts(text)
    assert CORE not in cut
    assert cut.startswith("INFO before\n")
    assert cut.endswith("\nINFO after")
    assert without_prompts(cut) == cut


TRICKY = (
    '", "',
    '"}, {"',
    "', '",
    "'}], 'x': ['",
    "\\",
    '\\"',
    '\\\\"',
    "it's",
    '"quoted"',
    "]}",
    '{"a": "',
    "prompt: ",
    '"content": "',
)


@pytest.mark.parametrize("writer", WRITERS)
@given(pieces=st.lists(st.sampled_from(TRICKY), max_size=6), place=st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_no_prompt_survives_that_looks_like_the_end_of_one(writer: str, pieces: list[str], place: int) -> None:
    prompt = "".join(pieces[:place]) + CORE + "".join(pieces[place:]) + CORE
    assert CORE not in without_prompts(f"INFO before\n{WRITERS[writer](prompt)}\nINFO after")


def test_a_prompt_over_several_lines_goes_whole() -> None:
    text = f"slot | task 0 | prompt: <s>[INST]one\ntwo {CORE}\n\n{CORE}[/INST]\nsrv  main: next\n{'ok'}"
    assert without_prompts(text) == "slot | task 0 | prompt: [removed]\nsrv  main: next\nok"


def test_single_tokens_of_a_prompt_go() -> None:
    assert (
        without_prompts("id 0 | prompt token   3:   1234 'Zebra'\nx") == "id 0 | prompt token   3:   1234 [removed]\nx"
    )


def test_a_prompt_of_which_a_log_shows_only_the_beginning_takes_no_other_line_with_it() -> None:
    text = 'request: {"messages": [{"role": "user", "content": "Zebra\nINFO kept "this" line: [1]\n'
    assert without_prompts(text) == 'request: {"messages": [removed]\nINFO kept "this" line: [1]\n'


NAME = st.from_regex(r"zq[a-z0-9]{3,10}", fullmatch=True)
SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40).filter(
    lambda text: "secret" not in text  # what stands in place of a secret says so
)
PLACES: tuple[Callable[[str], str], ...] = (
    lambda secret: f"INFO the engine said {secret} and went on",
    lambda secret: f"export SOMETHING={secret}",
    lambda secret: json.dumps({"options": {"x": secret}}),
    lambda secret: json.dumps(json.dumps({"x": secret})),
    lambda secret: f"GET http://127.0.0.1/{quote(secret, safe='')}/x",
    lambda secret: f"['llama-server', '--x', '{secret}']",
    lambda secret: "x " + base64.b64encode(secret.encode()).decode() + " y",
    lambda secret: secret,
)


@given(secret=SECRET, place=st.sampled_from(PLACES))
@settings(max_examples=300, deadline=None)
def test_a_known_secret_goes_from_every_place(secret: str, place: Callable[[str], str]) -> None:
    cut = redacted(place(secret), Private(secrets=(secret,)))
    assert secret not in cut
    assert json.dumps(secret)[1:-1] not in cut
    assert base64.b64encode(secret.encode()).decode().rstrip("=") not in cut


@given(user=NAME, host=NAME, address=st.ip_addresses(), uuid=st.uuids(), secret=SECRET, data=st.data())
@settings(max_examples=50, deadline=None)
def test_nothing_private_survives_among_what_is_kept(user, host, address, uuid, secret, data) -> None:
    planted = [
        f"/home/{user}/models/x", f"{user}@{host}:~$ ls", f"user={user}", f"connect {address} port 1", f"GPU-{uuid}",
        f"MIG-{uuid}", f"key {secret}", f"HF_TOKEN={secret}", f"https://{user}:{quote(secret, safe='')}@{host}/x",
        f"{user}.last@{host}.example.com", json.dumps(chat(secret)), f"{host.upper()} is up",
    ]  # fmt: skip
    lines = data.draw(st.permutations([*planted, *KEPT]))
    cut = redacted("\n".join(lines), Private((secret,), (user,), (f"/home/{user}",), (host,)))
    left = cut.split("\n")
    for name in (user, host, host.upper(), secret, str(uuid)):
        assert name not in cut
    if not (address.is_loopback or address.is_unspecified or str(address).startswith("255.")):
        assert f"connect {address} " not in cut
    shown = Private((secret,), (user,), (), (host,))
    assert [line for line in KEPT if redacted(line, shown) == line and line not in left] == []
    assert redacted(cut, Private((secret,), (user,), (), (host,))) == cut
