"""SECURITY.md names tests that exist, and the table of the threat model has no row without a defence."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_that_it_names_exists(file: str, test: str) -> None:
    source = (ROOT / file).read_text("utf-8")
    assert not test or re.search(rf"^\s*(?:async )?def {test}\(", source, re.MULTILINE)


def test_every_attack_has_a_defence() -> None:
    rows = [line for line in TEXT.partition("## Attackers")[2].splitlines() if line.startswith("| ")]
    cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows if not row.startswith("| attack")]
    assert len(cells) > 20
    assert all(len(c) == 3 and c[0] and c[1] for c in cells)
    assert len(NAMED) > 20


def test_links_resolve() -> None:
    for target in re.findall(r"\]\(([^)\s#]+)", TEXT):
        assert (ROOT / target).exists(), target
