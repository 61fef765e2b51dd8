"""The catalogue of profiles: what ships is sound, what a user writes goes over it, and what nobody knows stays unknown."""

import logging
from datetime import date

import pytest
import yaml

from fairlead import config, profiles
from fairlead.cli import main
from fairlead.errors import ConfigError
from fairlead.profiles import lookup, shipped
from fairlead.types import Profile, Tokens

PRICES = [f for f in Profile.__struct_fields__ if f.endswith("_usd_per_mtok")]
ROUTES = "routes: {auto: {policy: round_robin}}\n"


def make(text, folder=None):
    return config.make(config.parse(text + ROUTES), folder=folder)


def profile(spec, rest="", folder=None):
    return make(f"targets: {{t: {spec}}}\n{rest}", folder).drivers["t"].profile


def test_each_entry_has_a_source_and_a_day():
    for entry in shipped():
        assert entry.source.startswith("https://"), entry
        assert date(2025, 1, 1) < date.fromisoformat(entry.as_of) < date(2030, 1, 1), entry


def test_an_unknown_price_is_never_zero():
    """Only vectors cost nothing to put out: there are none to pay for."""
    for entry in shipped():
        zero = [f for f in PRICES if getattr(entry.profile, f) == 0]
        assert zero in ([], ["output_usd_per_mtok"] if "embeddings" in entry.profile.tasks else []), entry


def test_figures_are_likely():
    for entry in shipped():
        p = entry.profile
        assert (p.input_usd_per_mtok is None) == (p.output_usd_per_mtok is None), entry
        if p.input_usd_per_mtok is not None and "chat" in p.tasks:
            assert 0.01 <= p.input_usd_per_mtok <= p.output_usd_per_mtok <= 100, entry
            assert p.cached_input_usd_per_mtok is None or p.cached_input_usd_per_mtok < p.input_usd_per_mtok, entry
            assert p.cache_write_usd_per_mtok in (None, pytest.approx(1.25 * p.input_usd_per_mtok)), entry
        if p.context_tokens is not None:
            assert 2_000 <= p.context_tokens <= 2_000_000, entry


def test_lookup_is_exact_or_without_a_date():
    plain = lookup("anthropic", "claude-sonnet-4-5")
    assert plain.input_usd_per_mtok == 3.0
    assert lookup("anthropic", "claude-sonnet-4-5-20250929") == plain
    assert lookup("anthropic", "claude-sonnet-4-5@20250929") == plain
    assert lookup("openai", "gpt-4.1-2025-04-14") == lookup("openai", "gpt-4.1")
    # A snapshot with a price of its own is found before its date is taken off.
    assert lookup("openai", "gpt-4o-2024-05-13").input_usd_per_mtok == 5.0
    assert lookup("openai", "gpt-4o-2024-11-20").input_usd_per_mtok == 2.5


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4"),
        ("openai", "gpt-4o-latest"),
        ("openai", "gpt-4o-mini-tts"),
        ("openai", "claude-sonnet-4-5"),
        ("azure", "gpt-4o"),
        ("", "gpt-4o"),
        ("openai", "gpt-4o-20"),
        ("openai", "GPT-4o"),
    ],
)
def test_no_guess(provider, model):
    assert lookup(provider, model) is None


@pytest.mark.parametrize(
    ("spec", "usd"),
    [
        ("{type: openai_chat, model: gpt-4o-mini}", 0.15),
        ("{type: openai_chat, model: gpt-4o-mini, base_url: 'https://api.openai.com/v1'}", 0.15),
        ("{type: openai_chat, model: gpt-4o-mini, base_url: 'http://127.0.0.1:9/v1'}", None),
        ("{type: openai_chat, model: gpt-4o-mini, base_url: 'http://proxy/v1', provider: openai}", 0.15),
        ("{type: openai_chat, model: llama-3.1-8b-instant, provider: groq}", 0.05),
        ("{type: openai_chat, model: gpt-4o-mini, provider: groq}", None),
        ("{type: anthropic_messages, model: claude-haiku-4-5-20251001}", 1.0),
        ("{type: anthropic_messages, model: claude-haiku-4-5, base_url: 'http://127.0.0.1:9'}", None),
        ("{type: gemini, model: gemini-2.5-flash}", 0.3),
        ("{type: azure_openai, model: gpt-4o, endpoint: 'https://x.openai.azure.com'}", None),
        ("{type: vertex, model: gemini-2.5-flash}", None),
        ("{type: scripted}", None),
    ],
)
def test_whose_price_a_target_has(spec, usd):
    assert profile(spec).input_usd_per_mtok == usd


def test_a_targets_own_profile_wins_field_by_field():
    p = profile(
        "{type: openai_chat, model: gpt-4o-mini, profile: {input_usd_per_mtok: 9, cached_input_usd_per_mtok: null}}"
    )
    assert (p.input_usd_per_mtok, p.cached_input_usd_per_mtok, p.output_usd_per_mtok) == (9.0, None, 0.6)
    assert p.context_tokens == 128000


def test_a_users_file_goes_over_the_catalogue(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "openai:\n  source: our contract\n  models:\n    gpt-4o-mini: {input_usd_per_mtok: 0.1}\n    ours: {output_usd_per_mtok: 3}\n"
        "acme:\n  models: {m: {context_tokens: 9000}}\n"
    )
    rest = "profiles: mine.yaml\n"
    p = profile("{type: openai_chat, model: gpt-4o-mini-2024-07-18}", rest, tmp_path)
    assert (p.input_usd_per_mtok, p.output_usd_per_mtok) == (0.1, 0.6)
    assert profile("{type: openai_chat, model: ours}", rest, tmp_path).output_usd_per_mtok == 3.0
    p = profile("{type: openai_chat, model: gpt-4o-mini, profile: {input_usd_per_mtok: 0.2}}", rest, tmp_path)
    assert p.input_usd_per_mtok == 0.2
    assert profiles.load(tmp_path / "mine.yaml").find("acme", "m").profile.context_tokens == 9000
    assert lookup("openai", "ours") is None  # the shipped one is as it was


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("openai: {models: {m: {input_usd_per_mtok: -1}}}", "openai.models.m"),
        ("openai: {models: {m: {usd: 1}}}", "usd"),
        ("openai: {model: {}}", "model"),
        ("[1]", "object"),
        ("a: [", "YAML"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as e:
        profile("{type: scripted}", "profiles: mine.yaml\n", tmp_path)
    assert e.value.path == "$.profiles"


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        profile("{type: scripted}", "profiles: mine.yaml\n", tmp_path)


def test_a_target_without_a_price_is_told_once(tmp_path, caplog):
    made = make(
        "targets:\n  known: {type: openai_chat, model: gpt-4o-mini}\n"
        "  unknown: {type: openai_chat, model: m, base_url: 'http://127.0.0.1:9/v1'}\n  here: {type: scripted}\n",
        tmp_path,
    )
    with caplog.at_level(logging.WARNING):
        made.router()
    told = [r.getMessage() for r in caplog.records if "no price" in r.getMessage()]
    assert len(told) == 1
    assert "unknown" in told[0]


def test_kinds_of_tokens_are_priced():
    p = lookup("anthropic", "claude-sonnet-5")
    tokens = Tokens(input=1_000_000, cached_input=400_000, cache_write=100_000, output=100_000, reasoning=50_000)
    assert p.usd(tokens) == pytest.approx(0.5 * 2 + 0.4 * 0.2 + 0.1 * 2.5 + 0.1 * 10)


def test_models_lists_them(capsys, tmp_path):
    assert main(["models", "haiku-4-5"]) == 0
    out = capsys.readouterr().out
    assert "anthropic/claude-haiku-4-5" in out
    assert "200,000" in out
    assert "source: https://platform.claude.com" in out
    assert main(["models", "no-such"]) == 1
    assert "no-such" in capsys.readouterr().err
    assert main(["models", "deepseek/deepseek-flash"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[1:5] == ["-"] * 4  # unknown, not 0
    (tmp_path / "mine.yaml").write_text("acme: {models: {m: {context_tokens: 9000}}}")
    file = tmp_path / "fairlead.yaml"
    file.write_text("targets: {t: {type: scripted}}\nprofiles: mine.yaml\n" + ROUTES)
    assert main(["models", "acme", "--config", str(file)]) == 0
    assert "9,000" in capsys.readouterr().out


def test_validate_says_where_a_price_is_from(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    file = tmp_path / "fairlead.yaml"
    file.write_text("targets: {t: {type: openai_chat, model: gpt-4o}}\n" + ROUTES)
    assert main(["validate", str(file)]) == 0
    assert "2.5 / 10 USD per million tokens in / out (catalogue of profiles, as of 20" in capsys.readouterr().out


def test_the_file_is_yaml_without_a_key_twice():
    text = profiles.files("fairlead").joinpath("models.yaml").read_text("utf-8")
    assert config.parse(text) == yaml.safe_load(text)
