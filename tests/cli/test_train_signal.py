"""``fairlead train-signal``: examples in, a folder out that a config names."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from fairlead import config
from fairlead.build import trained
from fairlead.cli import main
from fairlead.types import Query

SETTINGS = ["--set", "features=2048", "--set", "hidden=16", "--set", "epochs=5"]
TOPICS = {"law": "the lease and the landlord in court", "health": "a fever and a rash on the skin"}


def rows(n: int = 40) -> list[dict[str, str]]:
    return [
        {"text": f"{'what ' * (i % 7)}about {words} for {chr(97 + i % 26)}{chr(97 + i // 26)}", "label": label}
        for label, words in TOPICS.items()
        for i in range(n)
    ]


def write(path: Path, some: list[dict[str, str]]) -> str:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(some[0]))
            writer.writeheader()
            writer.writerows(some)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(some), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
    return str(path)


def test_teach_then_serve_by_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "models" / "domain"
    assert main(["train-signal", "domain", write(tmp_path / "e.jsonl", rows()), "-o", str(out), *SETTINGS]) == 0
    said = capsys.readouterr().out
    assert "80 examples (health 40, law 40)" in said
    assert "on 16 that it had not seen: " in said
    assert "threshold" in said
    assert "at most 10%" in said
    manifest = (out / "manifest.json").read_text()
    assert json.loads(manifest)["held_out"]["examples"] == 16
    assert str(tmp_path) not in manifest
    assert trained(out, family="signals").digest() == json.loads(manifest)["digest"]

    # Folders start from the config file's, wherever the process runs.
    written = {
        "targets": {"a": {"type": "scripted"}},
        "signals": {"domain": {"trained": "models/domain"}},
        "routes": {"auto": {"policy": {"type": "round_robin"}}},
    }
    (tmp_path / "fairlead.yaml").write_text(yaml.safe_dump(written))
    signal = config.load(tmp_path / "fairlead.yaml").signals["domain"]
    assert signal.read(Query.ask(rows()[0]["text"])).value == "law"
    assert signal.read(Query.ask("hvad koster en billet til byen")).value is None


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_outcome_tables_and_columns_of_other_names(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # One row per query and model, as in an outcome table; some without a domain, one text of two.
    some = [{"prompt": r["text"], "domain": r["label"], "model": m} for r in rows() for m in ("big", "small")]
    some += [{"prompt": "who knows", "domain": "", "model": "big"}, {**some[0], "domain": "health"}]
    file = write(tmp_path / f"table{suffix}", some)
    args = [
        "train-signal",
        "{type: domain, refuse: 0.3}",
        file,
        "--label",
        "domain",
        "-o",
        str(tmp_path / "o"),
        "--json",
    ]
    assert main([*args, *SETTINGS]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["examples"], told["without_label"], told["of_two_labels"]) == (79, 1, 1)
    assert told["labels"] == {"health": 40, "law": 39}
    assert told["refuse"] == 0.3


def test_none_is_judged_apart_and_thresholds_can_be_set_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = [{"text": f"{'pawn ' * (i % 5 + 1)}takes rook at {chr(97 + i % 26)}", "label": "none"} for i in range(30)]
    first, second = tmp_path / "one", tmp_path / "two"
    assert (
        main(["train-signal", "domain", write(tmp_path / "e.jsonl", rows() + none), "-o", str(first), *SETTINGS]) == 0
    )
    assert "none of the domains" in capsys.readouterr().out
    fresh = write(tmp_path / "fresh.jsonl", [{"text": row["text"]} for row in rows(20)])
    again = ["train-signal", f"{{trained: {first}}}", fresh, "--recalibrate", "-o", str(second)]
    assert main(again) == 0
    assert "calibrated by 40 texts" in capsys.readouterr().out
    one, two = (trained(folder, family="signals") for folder in (first, second))
    assert one.state()["temperature_"] == two.state()["temperature_"]
    assert one.digest() != two.digest()


@pytest.mark.parametrize(
    ("signal", "extra", "told"),
    [
        ("domian", [], "did you mean 'domain'"),
        ("length", [], "learns nothing"),
        ("domain", ["--label", "lable"], "did you mean 'label'"),
        ("domain", ["--text", "body"], "--text"),
        ("domain", ["--recalibrate"], "taught"),
        ("{type: domain, refuse: 2}", [], "refuse"),
    ],
)
def test_errors_say_what_to_do(
    tmp_path: Path, signal: str, extra: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "e.jsonl", rows(12))
    assert main(["train-signal", signal, file, "-o", str(tmp_path / "o"), *extra]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_config_that_names_what_is_not_there(tmp_path: Path) -> None:
    from fairlead.errors import ConfigError

    data = {"targets": {"a": {"type": "scripted"}}, "routes": {}}
    with pytest.raises(ConfigError, match=r"signals\.domain\.trained.*no trained signal.*fairlead train-signal"):
        config.make({**data, "signals": {"domain": {"trained": "nowhere"}}}, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"signals\.domain.*learned from examples"):
        config.make({**data, "signals": {"domain": {}}})
