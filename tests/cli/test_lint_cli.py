"""``fairlead lint``: the guide's config is proved as the guide says; exit codes; JSON; counts on real prompts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fairlead.cli import main

pytest.importorskip("z3")

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "rules.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OURS = ("invoice", "refund", "login", "password", "export", "license", "upgrade", "account")
FOREIGN = ("weather", "football", "recipe", "holiday", "poem", "horoscope")


def guide(tmp_path: Path) -> Path:
    """Write the guide's config, and teach the domain that it names."""
    from fairlead.component import pack
    from fairlead.signals.domain import Domain

    config = next(text for language, text in BLOCK.findall(GUIDE.read_text("utf-8")) if language == "yaml")
    assert len(config.splitlines()) <= 42
    texts = [
        f"How do I {verb} my {word} in version {i}?" for i, word in enumerate(OURS * 3) for verb in ("find", "change")
    ]
    none = [f"Tell me about the {word} of day {i}" for i, word in enumerate(FOREIGN * 3)]
    domain = Domain()
    domain.fit([*texts, *none], ["product"] * len(texts) + ["none"] * len(none))
    (tmp_path / "domain").mkdir()
    (tmp_path / "domain" / "signal.msgpack").write_bytes(pack([domain.spec(), domain.state()]))
    path = tmp_path / "fairlead.yaml"
    path.write_text(config)
    return path


def output_after(text: str) -> list[list[str]]:
    return [block.strip().splitlines() for language, block in BLOCK.findall(text) if language == "text"]


def timeless(line: str) -> str:
    return re.sub(r"; \d+\.\d+ s$", "", line)


def test_the_guides_config_has_no_dead_zones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = guide(tmp_path)
    assert main(["lint", str(path)]) == 0
    found = [timeless(line) for line in capsys.readouterr().out.strip().splitlines()]
    assert "proved: rules auto: no dead zones, every input is covered by a rule" in found
    shown = output_after(GUIDE.read_text("utf-8"))
    assert found == [timeless(line) for line in shown[0]]

    config = path.read_text()
    path.write_text(config[: config.index("        - name: rest")])
    assert main(["lint", str(path)]) == 1
    found = [timeless(line) for line in capsys.readouterr().out.strip().splitlines()]
    assert [line for line in shown[1] if line != "…"] == [line for line in found if line in shown[1]]


def test_the_guides_config_on_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = guide(tmp_path)
    table = tmp_path / "prompts.jsonl"
    rows = [
        "How do I change my invoice?",
        "def f(x):\n    return x  # why does my export fail?",
        "Tell me about the weather",
    ]
    table.write_text(
        "".join(
            json.dumps({"prompt": text}) + "\n" for text in [*rows, "How do I find my refund, I am jo@example.org?"]
        )
    )
    assert main(["lint", str(path), "--fuzz", str(table), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["fuzz"]
    assert found["prompts"] == 4
    assert [g["holds"] for g in found["guards"] if g["name"] == "private"] == [1]
    rules = {r["name"]: r for r in found["rules"]["$.routes.auto.policy"]}
    assert sum(r["decides"] for r in rules.values()) == 4
    assert rules["default"]["decides"] == 0
    assert rules["foreign"]["refuses"] == rules["foreign"]["holds"] >= 1
    assert main(["lint", str(path), "--fuzz", str(table), "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "route auto, 2 prompts" in out
    assert "us on average" in out


CONFIG = """
targets: {{a: {{type: scripted}}, b: {{type: scripted}}}}
routes:
  auto:
    policy:
      type: rules
      rules:
        - {{name: code, when: {{marks.code: true}}, use: {0}}}
      {1}
"""


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    for text, code, says in (
        (CONFIG.format("a", "default: b"), 0, "proved:"),
        (CONFIG.format("a", ""), 1, "witness: marks.code=false"),
        (CONFIG.format("c", "default: d"), 1, "nothing was proved: mend these first"),
        ("targets: {a: {type: nonsense}}\nroutes: {auto: {policy: random}}\n", 2, "shows when the last one is mended"),
    ):
        path.write_text(text)
        assert main(["lint", str(path)]) == code, text
        assert says in capsys.readouterr().out
    path.write_text("a: [")
    assert main(["lint", str(path)]) == 2
    assert "is not YAML" in capsys.readouterr().err
    assert main(["lint", str(tmp_path / "none.yaml")]) == 2


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format("a", ""))
    assert main(["lint", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (finding,) = found["findings"]
    assert (finding["kind"], finding["level"], finding["witness"]) == ("dead_zone", "warning", {"marks.code": False})
    assert "fuzz" not in found


def test_many_of_a_kind_are_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    rules = "".join(f"        - {{when: {{length.tokens: {{lt: -{i}}}}}, use: a}}\n" for i in range(1, 14))
    path.write_text(CONFIG.format("a", "").rstrip() + "\n" + rules + "      default: b\n")
    assert main(["lint", str(path)]) == 1
    assert "… and 3 more of kind never_holds (--json shows all)" in capsys.readouterr().out
