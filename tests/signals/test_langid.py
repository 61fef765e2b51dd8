"""Languages by py3langid."""

# ruff: noqa: RUF001

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from fairlead.errors import ConfigError
from fairlead.signals import langid
from fairlead.signals.langid import LANGUAGES, Langid
from fairlead.testing import check_signal
from fairlead.types import Query


@pytest.fixture
def model() -> None:
    pytest.importorskip("py3langid", reason="pip install py3langid to test the signal langid")


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the capital of France, and why is it there?", "en"),
        ("Was ist die Hauptstadt von Frankreich, und warum?", "de"),
        ("Quelle est la capitale de l'Espagne, et pourquoi ?", "fr"),
        ("¿Cuál es la capital de Francia y por qué?", "es"),
        ("Какая столица у Франции и почему?", "ru"),
        ("フランスの首都はどこですか。", "ja"),
        ("你好，世界", "zh"),
        ("12345 + 5 = ?", None),
        ("", None),
    ],
)
def test_languages(text: str, code: str | None) -> None:
    reading = Langid().read(Query.ask(text))
    assert reading.value == code
    assert reading.parts == {"probability": reading.confidence}


@pytest.mark.usefixtures("model")
def test_only_the_languages_that_are_named_are_chosen_from() -> None:
    signal = Langid(languages=["en", "de"])
    assert {signal.read(Query.ask(t)).value for t in ("bonjour tout le monde", "hola", "hi", "Guten Tag")} <= {
        "en",
        "de",
    }
    assert signal.ranges()["value"].among == ("en", "de")
    # Fewer to choose from: surer of a short text.
    assert signal.read(Query.ask("Guten Tag")).confidence > Langid().read(Query.ask("Guten Tag")).confidence


@pytest.mark.usefixtures("model")
def test_the_list_is_the_models_own() -> None:
    assert sorted(LANGUAGES) == sorted(code for code in langid._whole().labels if len(code) == 2)


@pytest.mark.usefixtures("model")
def test_it_is_a_signal() -> None:
    check_signal(lambda: Langid(languages=["en", "ja"]))


def test_a_code_that_is_not_known_offers_another() -> None:
    with pytest.raises(ConfigError, match="no language 'eng'; did you mean 'en'") as e:
        Langid(languages=["de", "eng"]).check()
    assert e.value.path == "$.languages[1]"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    langid._whole.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ConfigError, match=r"pip install 'fairlead\[rules\]'"):
        Langid(languages=["fr"]).check()


def test_a_package_that_is_there_but_broken_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    langid._whole.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", ModuleType("empty"))
    with pytest.raises(ConfigError, match="not as expected"):
        Langid().check()


def test_making_one_loads_nothing() -> None:
    code = (
        "import sys; from fairlead.signals.langid import Langid; Langid().ranges(); Langid().digest();"
        "print([m for m in ('py3langid', 're2', 'onnxruntime', 'tokenizers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
