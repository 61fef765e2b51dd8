"""The documentation says what the code does: verbs, names, keys, links, commands and snippets are read off the pages and tried."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead import catalog, config
from fairlead.cli import parser, verbs
from fairlead.errors import ConfigError
from fairlead.guards import Guard
from fairlead.objective import Objective
from fairlead.plans.base import decode
from fairlead.types import Profile

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
CONFIG_PAGE = ROOT / "docs" / "guides" / "config.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(language: str) -> list[Any]:
    found = []
    for page in PAGES:
        for i, (its, text) in enumerate(BLOCK.findall(page.read_text("utf-8"))):
            if its == language:
                found.append(pytest.param(text, id=f"{name_of(page)}-{i}"))
    return found


def commands() -> Iterator[tuple[str, str, bool]]:
    """Yield (page, what follows `fairlead`, whether it is a whole command of a shell block)."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for language, block in BLOCK.findall(text):
            first = re.match(r"fairlead ([a-z-]+)", block)
            if language == "sh" or (not language and first and first[1] in verbs()):
                for line in block.replace("\\\n", " ").splitlines():
                    at = re.match(r"\s*(?:[\w./]*/)?fairlead ([a-z].*)", line)
                    if at:
                        yield name_of(page), at[1], True
        for span in re.findall(r"`(?:\.venv/bin/)?fairlead ([a-z][^`]*)`", BLOCK.sub("", text)):
            yield name_of(page), " ".join(span.split()), False


def arguments(command: str) -> list[str]:
    """Split a command as a shell would, up to a comment, a pipe or a redirection."""
    words = shlex.split(command, comments=True)
    ends = [i for i, w in enumerate(words) if w in ("|", "&", "&&", ">", "2>/dev/null", "…")]
    return words[: min(ends, default=len(words))]


def actions(verb: str) -> list[str]:
    """Name the actions of a verb that has some, such as `trace verify`."""
    for action in parser(verb)._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices[verb]._actions:
                if isinstance(inner, argparse._SubParsersAction):
                    return list(inner.choices)
    return []


def test_pages_are_found() -> None:
    assert {p.stem for p in GUIDES} >= {"quickstart", "config", "lab", "proof", "learning", "library", "own"}
    assert len(list(commands())) > 20


@pytest.mark.parametrize(("page", "command", "whole"), list(commands()))
def test_every_command_exists(page: str, command: str, whole: bool, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(command)
    assert words[0] in verbs(), f"{page}: fairlead has no verb {words[0]!r}"
    known = actions(words[0])
    if len(words) > 1 and known:
        assert words[1] in {*known, "--help"}, f"{page}: fairlead {words[0]} has no action {words[1]!r}"
    try:
        if whole:
            parser(words[0]).parse_args(words)
    except SystemExit as e:
        if e.code:
            pytest.fail(f"{page}: `fairlead {command}` is not understood")
    helped = help_of([words[0], *(w for w in words[1:2] if w in known)], capsys)
    for option in (w for w in words[1:] if w.startswith("--")):
        assert option in helped, f"{page}: `fairlead {command}` has no {option}"


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `fairlead … --help` prints."""
    with pytest.raises(SystemExit):
        parser(words[0]).parse_args([*words, "--help"])
    return capsys.readouterr().out


def test_every_verb_and_action_is_documented() -> None:
    said = {command for _, command, _ in commands()}
    for verb in verbs():
        for action in actions(verb) or [""]:
            wanted = f"{verb} {action}".strip()
            assert any(s == wanted or s.startswith(wanted + " ") for s in said), f"fairlead {wanted} is in no page"


@pytest.mark.parametrize(("family", "name"), [(f, n) for f, names in catalog.CATALOG.items() for n in names])
def test_every_name_is_documented(family: str, name: str) -> None:
    pages = [ROOT / "docs" / "methods" / "README.md", *GUIDES]
    text = "\n".join(p.read_text("utf-8") for p in pages)
    assert re.search(rf"(?<!\w){name}(?!\w)", text), f"{name} of {family} is in no page"


@pytest.mark.parametrize(
    "struct",
    [
        config.File,
        config.GatewayConfig,
        config.KeyConfig,
        config.LearningConfig,
        config.ObserveConfig,
        config.StoreConfig,
        Guard,
        Objective,
        Profile,
    ],
)
def test_every_key_is_documented(struct: Any) -> None:
    section = {
        config.GatewayConfig: "gateway.",
        config.StoreConfig: "store.",
        config.LearningConfig: "learning.",
        config.ObserveConfig: "observe.",
    }.get(struct)
    text = CONFIG_PAGE.read_text("utf-8")
    spans = set(re.findall(r"`([^`\n]+)`", text))
    if struct is config.KeyConfig:
        spans |= set(re.findall(r"(\w+): ", next(line for line in text.splitlines() if "`gateway.keys`" in line)))
    if struct is config.File:
        spans |= {s.partition(".")[0] for s in spans}
    for field in struct.__struct_fields__:
        assert f"{section or ''}{field}" in spans, f"config.md does not tell `{section or ''}{field}`"


@pytest.mark.parametrize("family", ["actions", "plans", "policies", "targets"])
def test_every_argument_is_documented(family: str) -> None:
    text = CONFIG_PAGE.read_text("utf-8")
    for name in catalog.CATALOG[family]:
        row = re.search(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
        assert row, f"config.md has no row for {name}"
        for argument in _parameters(catalog.find(family, name)):
            general = family == "targets" and argument in ("name", "profile")
            assert general or f"`{argument}`" in row[0], f"config.md does not tell `{argument}` of {name}"
        for said in re.findall(r"`([a-z_]+)`(?= \(|,| \||$)", row[0].partition("|")[2].partition("|")[2]):
            assert said in _parameters(catalog.find(family, name)), f"{name} takes no {said!r}"


def _parameters(kind: type[Any]) -> set[str]:
    return set(inspect.signature(kind).parameters)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    text = BLOCK.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{name_of(page)}: {target} leads nowhere"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads}, (
                f"no heading {target}"
            )


@pytest.mark.parametrize("snippet", blocks("python"))
def test_python_compiles_and_its_imports_exist(snippet: str) -> None:
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "fairlead":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize("snippet", blocks("yaml"))
def test_configs_are_valid(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = yaml.safe_load(snippet)
    assert isinstance(data, dict)
    if "kind" in data:
        decode(data)  # a plan
        return
    if set(data) <= set(config.File.__struct_fields__) and not {"targets", "routes"} <= set(data):
        data = {"targets": {"small": {"type": "scripted"}}, "routes": {}, **data}
    elif set(data) == {"policy"}:
        data = {"targets": {"small": {"type": "scripted"}}, "routes": {"auto": data}}
    monkeypatch.chdir(tmp_path)
    try:
        config.make(data)
    except ConfigError as e:
        # What `fairlead train` would have written, and the user's own files, are not there; all else must be right.
        if not e.path.endswith((".trained", ".model", ".tokenizer", ".call")):
            raise


def test_every_header_is_documented() -> None:
    """Those of answers, as the code that writes them spells them."""
    written = (ROOT / "src" / "fairlead" / "gateway" / "edge.py").read_text("utf-8")
    page = (ROOT / "docs" / "guides" / "gateway.md").read_text("utf-8")
    table = page.partition("## What comes back")[2].partition("\n\n**")[0]
    names = set(re.findall(r'b"(x-fairlead-[a-z-]+[a-z])"', written))
    assert {"x-fairlead-id", "x-fairlead-config", "x-fairlead-cost-usd"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in table] == []


def test_every_benchmark_is_listed() -> None:
    listed = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    for file in (ROOT / "benchmarks").glob("*.py"):
        assert file.name in listed, f"benchmarks/README.md does not list {file.name}"


def test_make_targets_exist() -> None:
    made = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text("utf-8"), re.MULTILINE):
            assert target in made, f"{name_of(page)}: make {target} does not exist"
