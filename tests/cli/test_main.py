"""The command line's frame: verbs are files, help is quick, errors are short."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from fairlead import cli
from fairlead.cli import serve, validate
from fairlead.config import load
from fairlead.gateway.door import hashed

CONFIG = """
targets:
  small: {type: scripted, replies: [four], profile: {input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}}
  big: {type: scripted, replies: ["4"]}
routes:
  auto: {policy: {type: fixed, plan: small}}
store: {path: STORE}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "fairlead.yaml"
    file.write_text(CONFIG.replace("STORE", str(tmp_path / "store.sqlite")))
    return file


def test_every_file_is_a_verb_with_help() -> None:
    found = cli.verbs()
    assert {"serve", "validate", "route", "key", "lab"} <= set(found)
    assert all(found.values())


@pytest.mark.parametrize("verb", sorted(cli.verbs()))
def test_every_verb_registers_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    assert verb in capsys.readouterr().out


def test_help_imports_no_verb() -> None:
    code = (
        "import sys, fairlead.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('fairlead.cli.') or m in ('numpy', 'starlette', 'aiohttp')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    assert "serve" in out


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["srve"])
    assert caught.value.code == 2
    assert "serve" in capsys.readouterr().err


def test_validate(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", str(config)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"ok: {config}, config {load(config).digest}\n")
    assert "target small: scripted" in out
    assert "route auto: fixed" in out


def test_a_config_has_one_name_wherever_it_lies(config: Path, tmp_path: Path) -> None:
    """What `validate` prints is what a gateway says that is live, also one told another port."""
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "other.yaml").write_text(config.read_text())
    assert load(moved / "other.yaml").digest == load(config).digest
    told = argparse.Namespace(config=str(config), host=None, port=1234, workers=None)
    assert serve._load(told).digest == load(config).digest
    (moved / "other.yaml").write_text(config.read_text() + "seed: 5\n")
    assert load(moved / "other.yaml").digest != load(config).digest


def test_validate_tells_which_packages_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        "targets: {b: {type: bedrock, model: m, region: eu-central-1}, v: {type: vertex, model: gemini-3, token: '${T}', project: p}}\n"
        "routes: {auto: {policy: random}}\nstore: {url: '${DATABASE}'}\n"
    )
    assert cli.main(["validate", str(file)]) == 0
    assert "not installed" not in capsys.readouterr().out
    monkeypatch.setattr(validate, "find_spec", lambda name: None)
    assert cli.main(["validate", str(file)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "not installed" in line]
    assert told == [
        "warning: botocore is not installed here; target b cannot start without it: pip install 'fairlead[bedrock]'",
        "warning: psycopg is not installed here; the store cannot start without it: pip install 'fairlead[postgres]'",
    ]


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ("targets: {t: {type: scripted, profil: {}}}\nroutes: {}", "$.targets.t.profil"),
        ("targets: {t: {type: scripted}}\nroutes: {auto: {policy: {type: fixd}}}", "$.routes.auto.policy.type"),
        ("targets: {t: {type: scripted}}\nroutes: {}\ngateway: {prt: 1}", "$.gateway"),
        ("targets: {t: {type: scripted}}\nroutes: {}\ngateway: {host: 0.0.0.0}", "$.gateway.keys"),
        ("targets: {t: {type: scripted}}\nroutes: {}\ngateway: {strongest: u}", "$.gateway.strongest"),
        ("a: [", ""),
    ],
)
def test_validate_names_the_wrong_key(
    tmp_path: Path, wrong: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(wrong)
    assert cli.main(["validate", str(file)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("fairlead: ")
    assert path in err
    assert "Traceback" not in err


def test_missing_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "/nowhere.yaml"]) == 1
    assert "fairlead init" in capsys.readouterr().err


def test_route(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["route", str(config), "what is 2+2?"]) == 0
    assert "chooses small (propensity 1.000)" in capsys.readouterr().out
    assert not (tmp_path / "store.sqlite").exists()
    assert cli.main(["route", str(config), "hi", "--route", "other"]) == 1
    assert "unknown route" in capsys.readouterr().err


def test_route_takes_fairlead_yaml_if_none_is_named(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["hi"], ["hi", "--json"], ["--route", "auto", "hi"], ["fairlead.yaml", "hi"]):
        assert cli.main(["route", *words]) == 0
        assert "small" in capsys.readouterr().out
    config.rename(tmp_path / "other.yaml")
    assert cli.main(["route", "--config", "other.yaml", "hi"]) == 0
    assert cli.main(["route", "hi", "--config", "other.yaml"]) == 0
    assert cli.main(["route", "hi"]) == 1
    assert "cannot read fairlead.yaml" in capsys.readouterr().err


def test_validate_warns_of_keys_that_are_not_set_and_of_prices_that_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NOPE_KEY", raising=False)
    monkeypatch.setenv("SOME_KEY", "x")
    file = tmp_path / "c.yaml"
    text = """
targets:
  a: {type: openai_chat, model: m, api_key: "${NOPE_KEY}"}
  b: {type: openai_chat, model: m, api_key: "${SOME_KEY}", profile: {output_usd_per_mtok: 2}, headers: {x-my-token: "${NOPE_KEY}"}}
  c: {type: scripted, profile: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}}
routes:
  auto: {policy: {type: rules, default: {policy: p}, policies: {p: {type: lin_ucb, objective: {usd_weight: W}}}}}
"""
    file.write_text(text.replace("W", "10"))
    assert cli.main(["validate", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ok")
    warnings = [line for line in out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert "NOPE_KEY is not set" in warnings[0]
    assert "a, b" in warnings[0]
    assert "route auto weighs USD" in warnings[1]
    assert "no price is known for a, b" in warnings[1]
    file.write_text(text.replace("W", "0"))
    assert cli.main(["validate", str(file)]) == 0
    assert "weighs USD" not in capsys.readouterr().out


def test_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["key", "new", "bob"]) == 0
    out = capsys.readouterr().out
    key = next(w for w in out.split() if w.startswith("fl-"))
    assert f'"bob": "{hashed(key)}"' in out
    assert cli.main(["key", "new", "no\nname"]) == 1


def test_lab_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "ask", "lab-nano", "3+4="]) == 0
    assert capsys.readouterr().out.strip()
    assert cli.main(["lab", "ask", "lab-nan", "3+4="]) == 1


def test_lab_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.csv"
    assert cli.main(["lab", "table", "-n", "2", "-o", str(file)]) == 0
    assert len(file.read_text().splitlines()) > 2


def test_validate_tells_of_guards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.yaml").write_text(
        "targets: {a: {type: scripted, replies: [x]}, b: {type: scripted, replies: [x]}}\n"
        "routes: {auto: {policy: random, guards: [{name: always, never: [b]}]}}\n"
        "guards: [{name: long, when: {length: {gt: 9}}, only: [a], do: [block]}]\n"
    )
    assert cli.main(["validate", str(tmp_path / "f.yaml")]) == 0
    said = capsys.readouterr().out
    assert "guard long of every route: only a; does block; reads length" in said
    assert "guard always of route auto: never b; always" in said


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("{injection: 0.65}", "exactly that number"),
        ('{pii.found: "true"}', "never holds: pii.found is a bool"),
        ("{injection: {ge: 65}}", "never holds: injection is at most 1"),
        ("{pii: true}", "never holds: pii is a int"),
        ("{any: [{language: klingon}, {marks.code: true}]}", "never holds: language is one of"),
    ],
)
def test_validate_warns_of_guards_that_can_never_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], when: str, why: str
) -> None:
    (tmp_path / "f.yaml").write_text(
        "targets: {a: {type: scripted, replies: [x]}}\nroutes: {auto: {policy: random}}\n"
        f"guards: [{{name: g, when: {when}, do: [block]}}]\n"
    )
    assert cli.main(["validate", str(tmp_path / "f.yaml")]) == 0
    assert "warning: guard g: " in (said := capsys.readouterr().out)
    assert why in said
