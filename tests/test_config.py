"""A config file is checked whole before anything starts."""

from pathlib import Path

import pytest

from fairlead.config import load, make
from fairlead.errors import ConfigError

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
    assert e.value.path == "$.routes.auto.policy"


@pytest.mark.parametrize(
    ("policy", "path", "hint"),
    [
        ({"type": "fixed", "plan": "c"}, "$.routes.auto.policy", "'c'"),
        ({"type": "random", "weights": {"aa": 1.0}}, "$.routes.auto.policy", "'a'"),
        (
            {"type": "rules", "rules": [{"when": {"length": {"gt": 1}}, "use": "aa"}], "default": "b"},
            "$.routes.auto",
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
