"""A config file is checked whole before anything starts."""

from pathlib import Path

import pytest

from fairlead.build import build
from fairlead.component import pack
from fairlead.config import load, make
from fairlead.errors import ConfigError
from fairlead.signals.marks import Marks

GOOD = {
    "targets": {"a": {"type": "scripted"}, "b": {"type": "scripted"}},
    "routes": {"auto": {"policy": {"type": "random"}}},
}


def test_a_config_builds() -> None:
    config = make(GOOD)
    assert list(config.drivers) == ["a", "b"]
    assert config.policies["auto"].type_name() == "random"
    assert config.gateway.host == "127.0.0.1"
    assert len(config.router().pool) == 2


@pytest.mark.parametrize(
    ("change", "path", "hint"),
    [
        ({"rotes": {}}, "$", "'routes'"),
        ({"targets": {}}, "$.targets", "at least one"),
        ({"targets": {"a": {"type": "openai"}}}, "$.targets.a.type", "openai_chat"),
        ({"targets": {"a": {"type": "openai_chat", "modle": "x"}}}, "$.targets.a.modle", "'model'"),
        ({"routes": {"auto": {"policy": "randm"}}}, "$.routes.auto.policy.type", "'random'"),
        ({"routes": {"auto": {"polcy": "random"}}}, "$.routes.auto", "'policy'"),
        ({"routes": {"a": {"policy": "random"}}}, "$.routes.a", "rename"),
        ({"gateway": {"prt": 1}}, "$.gateway", "'port'"),
        ({"store": {"relaxed": "maybe"}}, "$.store.relaxed", "bool"),
        ({"signals": {"lenth": {}}}, "$.signals.lenth.type", "'length'"),
        ({"gateway": {"port": 65536}}, "$.gateway.port", "65535"),
        ({"gateway": {"keys": {"a/b": "sha256:" + "0" * 64}}}, "$.gateway.keys", "without a '/'"),
        ({"gateway": {"port": -1}}, "$.gateway.port", "0"),
        ({"learning": {"batch": 0}}, "$.learning.batch", "1"),
        ({"learning": {"trust": {"anchor": ["tests"]}}}, "$.learning.trust", "'anchors'"),
        ({"learning": {"trust": {"memory": 0}}}, "$.learning.trust.memory", "1"),
        ({"fallbacks": -1}, "$.fallbacks", "0"),
        (
            {"targets": {"a": {"type": "scripted", "profile": {"input_usd_per_mtok": -1}}}},
            "$.targets.a.profile.input_usd_per_mtok",
            "0",
        ),
        ({"routes": {"auto": {"policy": {"type": "thompson", "sigma": 0}}}}, "$.routes.auto.policy.sigma", "0"),
        ({"routes": {"auto": {"policy": {"type": "thompson", "prior_var": 0}}}}, "$.routes.auto.policy.prior_var", "0"),
        ({"routes": {"auto": {"policy": {"type": "lin_ucb", "ridge": -1}}}}, "$.routes.auto.policy.ridge", "0"),
        ({"routes": {"auto": {"policy": {"type": "lin_ucb", "alpha": -1}}}}, "$.routes.auto.policy.alpha", "0"),
        ({"routes": {"auto": {"policy": {"type": "lin_ucb", "explore": 1.5}}}}, "$.routes.auto.policy.explore", "1"),
        (
            {"routes": {"auto": {"policy": {"type": "utility", "predictor": "knn", "explore": -0.1}}}},
            "$.routes.auto.policy.explore",
            "0",
        ),
    ],
)
def test_a_wrong_key_is_named_with_its_path_and_the_nearest_known_one(change: dict, path: str, hint: str) -> None:
    with pytest.raises(ConfigError) as e:
        make({**GOOD, **change})
    assert e.value.path.startswith(path)
    assert hint in str(e.value)


def test_a_literal_secret_is_refused_and_not_repeated() -> None:
    targets = {"a": {"type": "openai_chat", "model": "m", "base_url": "http://x", "api_key": "sk-live-123456"}}
    with pytest.raises(ConfigError) as e:
        make({**GOOD, "targets": targets})
    assert e.value.path == "$.targets.a.api_key"
    assert "${" in str(e.value)
    assert "sk-live" not in str(e.value)


def test_a_policy_that_reads_a_signal_that_is_not_there() -> None:
    rules = {"type": "rules", "rules": [{"name": "r", "when": {"keywrd.legal": True}, "use": "a"}], "default": "b"}
    with pytest.raises(ConfigError, match="keywrd") as e:
        make({**GOOD, "routes": {"auto": {"policy": rules}}})
    assert e.value.path == "$.routes.auto.policy.rules[0].when"


@pytest.mark.parametrize(
    ("policy", "path", "hint"),
    [
        ({"type": "fixed", "plan": "c"}, "$.routes.auto.policy", "'c'"),
        ({"type": "random", "weights": {"aa": 1.0}}, "$.routes.auto.policy", "'a'"),
        (
            {"type": "rules", "rules": [{"when": {"length": {"gt": 1}}, "use": "aa"}], "default": "b"},
            "$.routes.auto.policy.rules[0].use",
            "'a'",
        ),
        (
            {"type": "rules", "rules": [{"when": {"length": {"gtt": 1}}, "use": "a"}], "default": "b"},
            "$.routes.auto.policy.rules[0]",
            "'gt'",
        ),
        (
            {"type": "rules", "default": {"policy": "p"}, "policies": {"p": {"type": "fixed", "plan": "x"}}},
            "$.routes.auto.policy.policies.p",
            "'x'",
        ),
        ({"type": "utility", "predictor": "ridge"}, "$.routes.auto.policy.predictor", "fairlead train"),
    ],
)
def test_what_only_shows_once_everything_is_there(policy: dict, path: str, hint: str) -> None:
    with pytest.raises(ConfigError) as e:
        make({**GOOD, "routes": {"auto": {"policy": policy}}})
    assert e.value.path.startswith(path)
    assert hint in str(e.value)


def test_a_keyword_pattern_that_cannot_be_compiled_is_found_now() -> None:
    with pytest.raises(ConfigError) as e:
        make({**GOOD, "signals": {"legal": {"type": "keyword", "rules": {"contact": ["re:("]}}}})
    assert e.value.path.startswith("$.signals.legal.rules.contact[0]")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fairlead init"):
        load(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load(bad)
    bad.write_text("just text")
    with pytest.raises(ConfigError, match="mapping"):
        load(bad)


@pytest.mark.parametrize(
    ("key", "hint"),
    [("marks.math", "'maths'"), ("legal.lwa", "'law'"), ("embedding.size", "no parts"), ("language.shre", "'share'")],
)
def test_a_rule_over_a_part_that_its_signal_does_not_have(key: str, hint: str) -> None:
    when = {"all": [{"length.tokens": {"gt": 1}}, {"not": {key: True}}]}
    policy = {"type": "rules", "rules": [{"when": {"marks.code": True}, "use": "a"}, {"when": when, "use": "a"}]}
    signals = {"legal": {"type": "keyword", "rules": {"law": ["contract"]}}}
    for at, config in (
        ("$.routes.auto.policy", {**policy, "default": "b"}),
        (
            "$.routes.auto.policy.policies.p",
            {"type": "rules", "default": {"policy": "p"}, "policies": {"p": {**policy, "default": "b"}}},
        ),
    ):
        with pytest.raises(ConfigError, match=key) as e:
            make({**GOOD, "signals": signals, "routes": {"auto": {"policy": config}}})
        assert e.value.path == f"{at}.rules[1].when"
        assert hint in str(e.value)


def test_a_signal_may_leave_its_parts_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Marks, "parts", lambda self: None)
    rules = {"type": "rules", "rules": [{"when": {"marks.some": True}, "use": "a"}], "default": "b"}
    make({**GOOD, "routes": {"auto": {"policy": rules}}})


def test_a_key_that_is_there_twice_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("targets:\n  a: {type: scripted}\n  a: {type: local}\nroutes: {}\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml.*line 3.*'a'"):
        load(file)
    # A merge key may be overridden.
    file.write_text(
        "targets:\n  a: &a {type: scripted, timeout_seconds: 3}\n  b: {<<: *a, timeout_seconds: 4}\nroutes: {}\n"
    )
    assert load(file).drivers["b"].timeout_seconds == 4


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf"
    (folder / "mine").mkdir(parents=True)
    predictor = build("predictors", "mean")
    predictor.targets_ = ["a"]
    (folder / "mine" / "predictor.msgpack").write_bytes(pack([predictor.spec(), predictor.state()]))
    text = """
targets: {a: {type: scripted}}
routes: {auto: {policy: {type: utility, predictor: {trained: mine}}}}
store: {path: PATH}
"""
    file = folder / "fairlead.yaml"
    file.write_text(text.replace("PATH", "s.sqlite"))
    monkeypatch.chdir(tmp_path)
    made = load("conf/fairlead.yaml")
    assert made.file.store.path == "conf/s.sqlite"
    assert made.policies["auto"].predictor.targets_ == ["a"]
    file.write_text(text.replace("PATH", str(tmp_path / "s.sqlite")))
    assert load(file).file.store.path == str(tmp_path / "s.sqlite")
    monkeypatch.chdir(folder)
    assert load("fairlead.yaml").file.store.path == str(tmp_path / "s.sqlite")
    assert make({**GOOD, "store": {"path": "x.sqlite"}}).file.store.path == "x.sqlite"


def test_every_file_that_a_component_names_starts_from_the_folder(tmp_path: Path) -> None:
    config = make(
        {
            **GOOD,
            "guards": [{"name": "g", "do": ["cache", "check"]}],
            "actions": {
                "cache": {"store": {"type": "sqlite", "path": "c.sqlite"}},
                "check": {"scorer": {"type": "nli", "model": "n.onnx", "tokenizer": "/t.json"}},
            },
        },
        folder=tmp_path,
    )
    scorer = config.actions["check"].scorer  # type: ignore[attr-defined]
    assert (scorer.model, scorer.tokenizer) == (str(tmp_path / "n.onnx"), "/t.json")
    assert config.actions["cache"].store.path == str(tmp_path / "c.sqlite")  # type: ignore[attr-defined]
    encoder = {"type": "onnx", "model": "m.onnx", "tokenizer": "t.json"}
    cached = {**GOOD, "actions": {"cache": {"similar": 0.9, "embedder": encoder}}}
    for given in (cached, {**GOOD, "signals": {"embedding": {"embedder": encoder}}}):
        with pytest.raises(ConfigError, match=str(tmp_path / "m.onnx")):
            make(given, folder=tmp_path)


def test_one_name_for_a_guard_of_the_file_and_one_of_a_route_is_refused() -> None:
    own = {"auto": {**GOOD["routes"]["auto"], "guards": [{"name": "x", "do": ["block"]}]}}
    with pytest.raises(ConfigError, match="'x' too") as e:
        make({**GOOD, "routes": own, "guards": [{"name": "x", "do": ["tag"]}]})
    assert e.value.path == "$.routes.auto.guards[0].name"


def test_what_is_wrong_with_the_whole_file_has_no_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as e:
        load(tmp_path / "none.yaml")
    assert str(e.value).startswith("cannot read")


@pytest.mark.parametrize("keys", [{}, {"ci": "sha256:" + "0" * 64}])
def test_anchors_without_keys_are_warned_of(keys: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    make({**GOOD, "gateway": {"keys": keys}, "learning": {"trust": {"anchors": ["ci/tests"]}}})
    assert ("may call itself ci/tests" in caplog.text) is not bool(keys)


def test_a_number_of_more_than_64_bits_is_refused() -> None:
    data = {
        "targets": {
            "a": {"type": "scripted"},
            "b": {"type": "strategy", "of": "a", "fields": {"seed": 2**70}},
        },
        "routes": {},
    }
    with pytest.raises(ConfigError, match="64 bits"):
        make(data)
