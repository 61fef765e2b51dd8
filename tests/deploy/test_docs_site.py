"""The docs site: its hook's functions, what the config promises, and, where it was built (`make docs`), the site itself."""

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
built = pytest.mark.skipif(not (SITE / "llms.txt").exists(), reason="the site is not built: make docs")

_spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "deploy" / "docs_hooks.py")
assert _spec is not None
assert _spec.loader is not None
hooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hooks)


class _Loader(yaml.SafeLoader):
    """Takes MkDocs' own tags for what they hold."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: f"{suffix}")
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), _Loader)


def relinked(text: str, page: str = "docs/guides/gateway.md", repository: str = "") -> str:
    pages = ["docs/guides/gateway.md", "docs/guides/rules.md", "docs/structure.md", "benchmarks/README.md"]
    return str(hooks.relinked(text, page, pages=pages, repository=repository))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rules](rules.md#when)", "[rules](rules.md#when)"),
        ("[the walk](../structure.md)", "[the walk](../structure.md)"),
        ("[here](#errors)", "[here](#errors)"),
        ("[`door.py`](../../src/fairlead/gateway/door.py)", "`door.py`"),
        ("[figures](../../benchmarks/README.md)", "[figures](../benchmarks.md)"),
        ("![plot](../images/plot.png)", "![plot](../images/plot.png)"),
        ("[elsewhere](mailto:nobody)", "[elsewhere](mailto:nobody)"),
        ("```md\n[`door.py`](../../src/door.py)\n```", "```md\n[`door.py`](../../src/door.py)\n```"),
    ],
)
def test_links_that_leave_the_docs_are_text_without_a_repository(text: str, said: str) -> None:
    assert relinked(text) == said


def test_and_lead_there_with_one() -> None:
    text = relinked("[`door.py`](../../src/fairlead/gateway/door.py#L1)", repository="https://host.example/fairlead/")
    assert text == "[`door.py`](https://host.example/fairlead/blob/main/src/fairlead/gateway/door.py#L1)"


def test_a_page_from_elsewhere_links_from_where_it_lies_in_the_site() -> None:
    assert relinked("[rules](../docs/guides/rules.md)", "benchmarks/README.md") == "[rules](guides/rules.md)"


def test_pages_that_the_navigation_does_not_place_are_found() -> None:
    nav = ["index.md", {"Start": ["guides/a.md", {"B": "guides/b.md"}]}, {"C": "guides/c.md"}]
    assert hooks.unplaced(nav, [f"guides/{x}.md" for x in "abcd"]) == ["guides/d.md"]


def test_the_navigation_has_no_page_that_is_not_there() -> None:
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")} | set(hooks.OUTSIDE.values())
    placed = re.findall(r"(?:^|: |- )([\w/-]+\.md)", yaml.dump(CONFIG["nav"]), re.MULTILINE)
    assert len(placed) > 30
    assert set(placed) <= pages


def test_every_module_of_the_reference_exists_and_says_what_it_is() -> None:
    modules = [m for names in hooks.API.values() for m in names]
    assert {"router", "policies.base", "testing"} <= set(modules)
    for module in modules:
        source = ROOT / "src" / "fairlead" / (module.replace(".", "/") + ".py")
        assert hooks.first_line(source)
        assert hooks.api_markdown(module).startswith(f"# fairlead.{module}\n")


def test_the_reference_as_text_has_signatures_and_docstrings() -> None:
    text = hooks.api_markdown("secret")
    assert "## class Secret" in text
    assert "def reveal(self, *, path: str='$') -> str" in text
    assert "Read the value now." in text
    assert "_KEY_LIKE" not in text


def test_no_font_is_fetched() -> None:
    assert CONFIG["theme"]["font"] is False
    assert "repo_url" not in CONFIG, "the theme would ask the host for stars in the reader's browser"


class _Fetched(HTMLParser):
    """Collects what a browser fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.found.append(given.get("src") or "")
        elif tag == "link" and "canonical" not in (given.get("rel") or ""):
            self.found.append(given.get("href") or "")


@built
def test_nothing_is_fetched_from_outside() -> None:
    pages = list(SITE.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        parser = _Fetched()
        parser.feed(page.read_text("utf-8"))
        assert [f for f in parser.found if re.match(r"(?:[a-z]+:)?//", f)] == [], page
        assert 'class="mermaid"' not in page.read_text("utf-8"), "the theme fetches what draws them"
    for style in SITE.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )['\"]?(?:https?:)?//", style.read_text("utf-8")), style


@built
def test_every_page_has_its_markdown_and_a_line_in_llms_txt() -> None:
    index = (SITE / "llms.txt").read_text("utf-8")
    assert index.startswith("# Fairlead\n\n> ")
    full = (SITE / "llms-full.txt").read_text("utf-8")
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", index, re.MULTILINE)
    assert {f"guides/{g.name}" for g in (ROOT / "docs" / "guides").glob("*.md")} <= set(listed)
    for path in listed:
        text = (SITE / path).read_text("utf-8").strip()
        assert text
        assert text in full
    assert "../src/" not in re.sub(r"```.*?```", "", full, flags=re.DOTALL)
