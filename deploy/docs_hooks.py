"""What the docs site needs beyond pages: a hook of MkDocs, used by `mkdocs.yml` alone.

- The API reference: one page per module of `API`, written by mkdocstrings from the docstrings.
- Pages that lie elsewhere in the repository (`OUTSIDE`) are pages of the site too.
- Links that leave docs/ for a file that is no page lead to the repository, if `extra.repository` names one, else they are plain text.
- For readers that are language models: `llms.txt` (what is where), `llms-full.txt` (all of it) and beside each page its Markdown, under the
  page's own path: ``guides/gateway.md`` for ``guides/gateway/``.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

OUTSIDE = {
    "benchmarks/README.md": "benchmarks.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Path in the repository -> path in the site."""

API = {
    "The loop": ("types", "router", "config", "pool", "objective", "errors"),
    "Families": (
        "policies.base",
        "predictors.base",
        "signals.base",
        "plans.base",
        "targets.base",
        "actions.base",
        "caches.base",
        "scorers.base",
        "answers.base",
        "embeddings.base",
    ),
    "Worlds": ("worlds.base", "worlds.live", "worlds.replay", "worlds.tabled", "worlds.batched"),
    "State and proof": ("component", "build", "store", "sqlite", "learner", "prove", "guards", "conditions"),
    "Measuring": ("table", "bench.evaluate", "bench.metrics", "testing"),
}

_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def relinked(text: str, page: str, *, pages: Iterable[str], repository: str) -> str:
    """Return the Markdown of a page with links that the site can follow.

    Args:
        text: Markdown.
        page: where it lies in the repository, as in ``docs/guides/gateway.md``.
        pages: where the site's pages lie in the repository.
        repository: base URL of the sources, or empty.
    """
    known = set(pages)
    at = posixpath.dirname(_place(page))

    def follow(match: re.Match[str]) -> str:
        said, target = match[1], match[2]
        path, mark, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        if file in known:
            return f"[{said}]({posixpath.relpath(_place(file), at or '.')}{mark}{anchor})"
        if file.startswith("docs/") and not file.endswith(".md"):
            return f"[{said}]({posixpath.relpath(file.removeprefix('docs/'), at or '.')})"
        return f"[{said}]({repository.rstrip('/')}/blob/main/{file}{mark}{anchor})" if repository else said

    pieces, end = [], 0
    for fence in _FENCE.finditer(text):
        pieces += [_LINK.sub(follow, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, _LINK.sub(follow, text[end:])])


def _place(file: str) -> str:
    """Return where a file of the repository lies in the site."""
    return OUTSIDE.get(file, file.removeprefix("docs/"))


def unplaced(nav: list[Any], pages: Iterable[str]) -> list[str]:
    """Return the pages that a navigation does not have."""
    placed: set[str] = set()
    rest = list(nav)
    while rest:
        match rest.pop():
            case dict() as entry:
                rest += entry.values()
            case list() as entries:
                rest += entries
            case str() as page:
                placed.add(page)
    return [page for page in pages if page not in placed]


def first_line(path: Path) -> str:
    """Return the first sentence of a module's docstring."""
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.split(r"(?<=[.:])\s", " ".join(said.split()), maxsplit=1)[0].rstrip(":.")


def described(markdown: str) -> str:
    """Return the first sentence of a page's first paragraph, without marks."""
    body = _FENCE.sub("", re.sub(r"^#.*$", "", markdown, flags=re.MULTILINE))
    paragraphs = [p for p in re.split(r"\n\s*\n", body) if re.match(r"\s*[\w`*\[]", p)]
    text = " ".join(paragraphs[0].split()) if paragraphs else ""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0].rstrip(":")


def api_markdown(module: str) -> str:
    """Return the public names of a module with signatures and docstrings, as Markdown without a builder: for readers of text."""
    tree = ast.parse(_source(module).read_text("utf-8"))
    out = [f"# fairlead.{module}", ast.get_docstring(tree) or ""]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            bases = ", ".join(ast.unparse(b) for b in node.bases)
            out += [f"## class {node.name}({bases})", ast.get_docstring(node) or "", *_fields(node)]
            out += [part for inner in node.body for part in _function(inner, "###")]
        else:
            out += _function(node, "##")
    return "\n\n".join(p for p in out if p) + "\n"


def _source(module: str) -> Path:
    return ROOT / "src" / "fairlead" / (module.replace(".", "/") + ".py")


def _fields(node: ast.ClassDef) -> list[str]:
    lines = [
        ast.unparse(inner)
        for inner in node.body
        if isinstance(inner, ast.AnnAssign) and not ast.unparse(inner.target).startswith("_")
    ]
    return ["```python\n" + "\n".join(lines) + "\n```"] if lines else []


def _function(node: ast.stmt, mark: str) -> list[str]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    if node.name.startswith("_") and node.name != "__init__":
        return []
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    signature = f"{word} {node.name}({ast.unparse(node.args)}){returns}"
    return [f"{mark} {node.name}", f"```python\n{signature}\n```", ast.get_docstring(node) or ""]


# What MkDocs calls, by name.


def on_config(config: Any) -> Any:
    """Put into the navigation: guides that it does not place, the decisions, and the API reference."""
    more = unplaced(config.nav, [f"guides/{p.name}" for p in sorted((ROOT / "docs" / "guides").glob("*.md"))])
    if more:
        config.nav.append({"More": more})
    decisions = [f"decisions/{p.name}" for p in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))]
    config.nav.append({"Decisions": ["decisions/README.md", *decisions]})
    sections = [{name: [{f"fairlead.{m}": f"api/{m}.md"} for m in modules]} for name, modules in API.items()]
    config.nav.append({"API": ["api/index.md", *sections]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are no files of docs/."""
    from mkdocs.structure.files import File

    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text("utf-8")))
    lines = ["# API", "From the docstrings. What begins with an underscore is nobody's business.", ""]
    for name, modules in API.items():
        lines += [f"## {name}", ""]
        for module in modules:
            lines.append(f"- [`fairlead.{module}`]({module}.md): {first_line(_source(module))}")
            content = f"# fairlead.{module}\n\n::: fairlead.{module}\n"
            files.append(File.generated(config, f"api/{module}.md", content=content))
        lines.append("")
    files.append(File.generated(config, "api/index.md", content="\n".join(lines)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Make the page's links ones that the site can follow."""
    places = {place: source for source, place in OUTSIDE.items()}
    where = page.file.src_uri
    return relinked(
        markdown,
        places.get(where, f"docs/{where}"),
        pages=[places.get(f.src_uri, f"docs/{f.src_uri}") for f in files.documentation_pages()],
        repository=config.extra["repository"],
    )


def on_env(env: Any, config: Any, files: Any) -> Any:
    """Keep the pages' texts: they are whole now, and gone after the build."""
    config.extra["texts"] = {f.src_uri: (f.page.title, f.page.markdown) for f in files.documentation_pages() if f.page}
    return env


def on_post_build(config: Any) -> None:
    """Write what language models read."""
    site, texts = Path(config.site_dir), config.extra["texts"]
    base = config.site_url or ""
    index, full = [f"# {config.site_name}", "", f"> {config.site_description}", ""], []

    def add(entries: list[Any], heading: str | None) -> None:
        nonlocal index
        if heading:
            index += [f"## {heading}", ""]
        nested = []
        for entry in entries:
            ((_, inner),) = entry.items() if isinstance(entry, dict) else ((None, entry),)
            if isinstance(inner, list):
                nested.append(inner)
                continue
            title, text = texts[inner]
            if inner.startswith("api/") and inner != "api/index.md":
                module = inner.removeprefix("api/").removesuffix(".md")
                text, said = api_markdown(module), first_line(_source(module))
            else:
                said = described(text)
            place = site / inner
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, "utf-8")
            index.append(f"- [{title}]({base}{inner}): {said}")
            full.append(text.strip())
        index.append("")
        for inner in nested:
            add(inner, None)

    for entry in config.nav:
        ((heading, inner),) = entry.items()
        add(inner if isinstance(inner, list) else [entry], heading if isinstance(inner, list) else None)
    (site / "llms.txt").write_text(re.sub(r"\n{3,}", "\n\n", "\n".join(index)).strip() + "\n", "utf-8")
    (site / "llms-full.txt").write_text("\n\n---\n\n".join(full) + "\n", "utf-8")
