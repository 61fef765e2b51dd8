"""Secrets by reference."""

import copy

import msgspec
import pytest

from fairlead.errors import ConfigError
from fairlead.secret import Secret, checked, redact, reveal


@pytest.mark.parametrize("reference", ["${MY_KEY}", "os.environ/MY_KEY", "  ${MY_KEY} "])
def test_reads_the_variable_when_asked(reference, monkeypatch):
    secret = Secret(reference)
    monkeypatch.setenv("MY_KEY", "hush-1")
    assert secret.reveal() == "hush-1"
    monkeypatch.setenv("MY_KEY", "hush-2\n")
    assert secret.reveal() == "hush-2"
    assert secret.reference == "${MY_KEY}"


def test_text_forms_show_the_name_alone(monkeypatch):
    monkeypatch.setenv("MY_KEY", "hush")
    secret = Secret("${MY_KEY}")
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret]), msgspec.json.encode(str(secret)).decode()):
        assert "MY_KEY" in shown
        assert "hush" not in shown
    assert copy.deepcopy(secret) == secret
    with pytest.raises(TypeError):
        msgspec.to_builtins(secret)


@pytest.mark.parametrize("value", ["", "  "])
def test_unset_names_the_variable(value, monkeypatch):
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match=r"\$\.a\.b: .*MY_KEY is not set"):
        reveal("${MY_KEY}", path="$.a.b")


@pytest.mark.parametrize("literal", ["sk-live-abcdef", "${A}${B}", "$MY_KEY", "${}", "", "${A B}", "x${A}"])
def test_literals_are_refused_and_not_repeated(literal):
    with pytest.raises(ConfigError, match=r"\$\{NAME") as caught:
        checked(literal, path="$.api_key")
    assert caught.value.path == "$.api_key"
    if literal:
        assert literal not in str(caught.value)


def test_redact():
    assert redact("bad key hush-hush!", "hush-hush") == "bad key [secret]!"
    assert "abcd" not in redact("Incorrect API key provided: sk-proj-abcd********wxyz.")
    assert redact("Authorization: Bearer abcdef") == "Authorization: Bearer [secret]"
    assert redact("nothing here", "") == "nothing here"
