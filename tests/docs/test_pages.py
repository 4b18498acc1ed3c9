"""The documentation is true: what it names exists, its links lead somewhere, and it speaks plain English."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from support.pages import DOCS, PAGES, ROOT, anchors, code, commands, links, name, written
from support.phrases import phrases_in

from mscli.catalog.load import load_catalog
from mscli.cli.tree import tree
from mscli.paths import shipped_profiles

CATALOG = load_catalog(shipped_profiles(), None)
PROFILES = set(CATALOG.profiles)
# Names that stand for a profile of the reader's own, and the library name that a guide types.
OTHERS = {"mine", "mistral-small3.1"}
TAKES_A_MODEL = {"up", "plan", "pull"}
TAKES_A_PROFILE = {*TAKES_A_MODEL, "profiles show", "profiles update"}
# No paths, though they look like ones: the schema of the JSON output, and models as Ollama names them.
NO_PATHS = re.compile(r"mscli/(?:\d|small|record)")
PATH = re.compile(r"(?<![\w/.~-])((?:mscli|tests|docs|benchmarks|profiles)/[\w./*<>-]*)(?:::(\w+))?")
# What a reader puts a name of his own in place of.
PLACEHOLDER = re.compile(r"[A-Z]{2,}[A-Z_]*|\.\.\.|\[.*|<.*")
GENERATED = {DOCS / "reference" / "commands.md"}
every_page = pytest.mark.parametrize("page", PAGES, ids=name)


@every_page
def test_every_command_exists_with_its_options(page: Path) -> None:
    root = typer.main.get_command(tree())
    faults = [f"mscli {line}: {fault}" for line in commands(page) for fault in faults_of(root, words_of(line))]
    assert not faults, "\n".join(faults)


def words_of(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that is closed in another line
        return line.split()


def faults_of(node: Any, words: list[str], path: tuple[str, ...] = ()) -> Iterator[str]:
    children = getattr(node, "commands", {})
    if words and words[0] in children:
        yield from faults_of(children[words[0]], words[1:], (*path, words[0]))
        return
    if children and not path and words and not words[0].startswith("-"):
        if not PLACEHOLDER.fullmatch(words[0]):
            yield f"no command {words[0]!r}"
        return
    known = {spelt: it for it in node.params for spelt in (*it.opts, *it.secondary_opts)}
    positional, value_follows = [], False
    for word in words[: words.index("--")] if "--" in words else words:
        if value_follows or not word.startswith("-") or word == "-":
            positional += [] if value_follows else [word]
            value_follows = False
            continue
        spelt = word.partition("=")[0]
        if spelt not in known and spelt not in {"--help", "-h"}:
            yield f"no option {spelt}"
        value_follows = spelt in known and not known[spelt].is_flag
    named = positional[0] if positional and " ".join(path) in TAKES_A_PROFILE else None
    model = named and " ".join(path) in TAKES_A_MODEL and CATALOG.ways(named)
    if named and not model and named not in PROFILES | OTHERS and not PLACEHOLDER.fullmatch(named):
        yield f"no profile {named!r}"


@every_page
def test_every_path_and_test_exists(page: Path) -> None:
    missing = []
    for text in code(page):
        for found in PATH.finditer(text):
            path, test = found[1].rstrip("."), found[2]
            if NO_PATHS.match(path):
                continue
            there = list(ROOT.glob(re.sub(r"<[^>]*>", "*", path).rstrip("/")))
            if not there or (test and f"def {test}(" not in there[0].read_text()):
                missing.append(found[0])
    assert not missing, f"not in this repository: {missing}"


@every_page
def test_every_module_exists(page: Path) -> None:
    named = {it for text in code(page) for it in re.findall(r"(?<![\w=])mscli(?:\.[a-z_]\w*)+(?![\w=])", text)}
    missing = [it for it in named if not it.endswith((".yaml", ".md")) and not exists(it)]
    assert not missing, f"no such module: {missing}"


def exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


@every_page
def test_no_page_uses_a_phrase_of_the_table(page: Path) -> None:
    if page in GENERATED:  # its words are the commands' own help, which has a test of its own
        return
    found = [f"line {line}: {phrase!r}: say {better!r}" for line, phrase, better in phrases_in(written(page))]
    assert not found, "\n".join(found)


@every_page
def test_every_variable_of_mscli_is_read_or_set_by_it(page: Path) -> None:
    source = "\n".join(path.read_text() for folder in ("mscli", "tests") for path in (ROOT / folder).rglob("*.py"))
    named = set(re.findall(r"\bMSCLI_[A-Z_]+\b", page.read_text()))
    assert {it for it in named if it not in source} == set()


def test_the_readme_has_what_a_newcomer_looks_for() -> None:
    text = (ROOT / "README.md").read_text()
    pages = ("one-24gb-card", "two-cards", "h100", "no-gpu", "remote", "offline", "uninstall", "faq")
    assert [page for page in pages if f"docs/how-to/{page}.md" not in text] == []
    assert [
        word for word in ("clone", "venv", "pip install", "pipx", "uv tool", "SECURITY.md") if word not in text
    ] == []
    assert text.index("<!-- recorded: ") < text.index("\n## "), "what one gets stands first"


def test_the_index_leads_to_every_page() -> None:
    index = DOCS / "index.md"
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in links(index)}
    assert set(DOCS.rglob("*.md")) - {index} <= linked


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", DOCS / "explanation" / "architecture.md"], ids=name)
def test_the_picture_of_the_layers_has_every_part(page: Path) -> None:
    picture = next(it for it in page.read_text().split("```") if "lifecycle" in it and "errors" in it)
    parts = {it.stem for it in (ROOT / "mscli").iterdir() if it.suffix == ".py" or (it / "__init__.py").exists()}
    missing = sorted(it for it in parts if not it.startswith("__") and not re.search(rf"\b{it}\b", picture))
    assert not missing, f"not in the picture: {missing}"


def test_every_claim_about_security_names_a_test() -> None:
    claims = (ROOT / "SECURITY.md").read_text().partition("## Claims")[2].partition("## What is not guarded")[0]
    rows = [line for line in claims.splitlines() if line.startswith("|") and not line.startswith(("| claim", "| ---"))]
    assert len(rows) > 30
    assert [row for row in rows if not PATH.search(row.rpartition(" | ")[2])] == []
