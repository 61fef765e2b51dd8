"""Which language a query is written in, by py3langid: naive Bayes on byte n-grams (Lui & Baldwin 2011, "Cross-domain feature selection for
language identification"). Needs the extra `rules`.

The model is read at the check or the first text (0.7 s, 20 MB). Of a text the first `READ` characters are read. Short texts are guesses, which the confidence shows: name the `languages` that you serve, and a
word or two is told more often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import Any, Final

from fairlead.errors import ConfigError, suggest
from fairlead.signals.base import SHARE, Law, Range, Signal, alike
from fairlead.types import Query, Reading

READ: Final = 1_000
# fmt: off
LANGUAGES: Final = (
    "af", "am", "an", "ar", "as", "az", "ba", "be", "bg", "bn", "br", "bs", "ca", "cs", "cy", "da", "de", "dz", "el", "en", "eo", "es",
    "et", "eu", "fa", "fi", "fo", "fr", "fy", "ga", "gd", "gl", "gu", "ha", "he", "hi", "hr", "ht", "hu", "hy", "id", "ig", "is", "it",
    "ja", "jv", "ka", "kk", "km", "kn", "ko", "ku", "ky", "la", "lb", "lg", "ln", "lo", "lt", "lv", "mg", "mk", "ml", "mn", "mr", "ms",
    "mt", "my", "ne", "nl", "nn", "no", "oc", "om", "or", "pa", "pl", "ps", "pt", "qu", "ro", "ru", "rw", "sa", "se", "si", "sk", "sl",
    "sn", "so", "sq", "sr", "st", "sv", "sw", "ta", "te", "tg", "th", "tk", "tl", "tr", "tt", "ug", "uk", "ur", "uz", "vi", "vo", "wa",
    "xh", "yo", "zh", "zu",
)
# fmt: on
"""Two-letter codes (ISO 639-1) that the model knows; its three-letter ones are left out."""


class Langid(Signal):
    """Value: the language's two-letter code; null for a text without letters. Part `probability`: the model's own, also the confidence.

    Args:
        languages: codes to choose from; none: all in `LANGUAGES`.

    Raises:
        ConfigError: at the first reading (or `check`), for a code that the model does not know, or if py3langid is missing.
    """

    __slots__ = ("_model",)
    _model: Any

    def __init__(self, *, languages: Sequence[str] = ()) -> None:
        self.languages = languages

    def check(self) -> None:
        """Raise `ConfigError` now rather than at the first query. Reads the model."""
        for i, code in enumerate(self.languages):
            if code not in LANGUAGES:
                raise ConfigError(
                    f"the model knows no language {code!r}; {suggest(code, LANGUAGES)}", path=f"$.languages[{i}]"
                )
        self._model = _model(tuple(sorted(set(self.languages))) or LANGUAGES)

    def ranges(self) -> Mapping[str, Range]:
        """One of the languages, or null."""
        among = tuple(self.languages) or LANGUAGES
        return {"value": Range(kind="string", among=among, null=True), "probability": SHARE}

    def laws(self) -> Sequence[Law]:
        """A language that is named has a probability."""
        return (alike({"value": None}, {"probability": 0.0}),)

    def _read(self, query: Query) -> Reading:
        try:
            model = self._model
        except AttributeError:  # a slot that is not filled yet
            self.check()
            model = self._model
        text = query.text[:READ]
        if not any(map(str.isalpha, text)):
            return Reading(parts={"probability": 0.0}, confidence=0.0)
        code, probability = model.classify(text)
        return Reading(value=code, parts={"probability": min(probability, 1.0)}, confidence=min(probability, 1.0))


def _model(languages: tuple[str, ...]) -> Any:
    model = copy(_whole())
    model.set_languages(languages)
    return model


@lru_cache(maxsize=1)
def _whole() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as e:
        raise ConfigError(f"the signal langid needs {e.name}: pip install 'fairlead[rules]'") from e
    except ImportError as e:
        raise ConfigError(f"the package py3langid is not as expected ({e}); pip install -U 'fairlead[rules]'") from e
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
