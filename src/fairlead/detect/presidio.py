"""Names and addresses, by Microsoft Presidio and a spaCy model: optional, since it takes both to be installed.

``pip install 'fairlead[presidio]'``, then the model: ``python -m spacy download en_core_web_lg``. The model's name begins with its language.
Presidio's PERSON is a `name`, its LOCATION an `address` (a town counts too). How well it finds them is Presidio's and the model's matter and is
not measured here. Some milliseconds for 300 characters, so never on the event loop.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

from fairlead.detect.span import Span
from fairlead.errors import ConfigError

ENTITIES: Final = {"PERSON": "name", "LOCATION": "address"}
LEAST: Final = 0.4
"""What Presidio is less sure of does not count."""


class Presidio:
    """Finds with an analyzer: an ``AnalyzerEngine``, or anything with its `analyze`."""

    def __init__(self, *, analyzer: Any, language: str = "en") -> None:
        self.analyzer, self.language = analyzer, language

    def find(self, text: str, *, kinds: Collection[str]) -> list[Span]:
        """Return the names and addresses in `text`, as far as they are among `kinds`."""
        entities = [entity for entity, kind in ENTITIES.items() if kind in kinds]
        if not entities or not text.strip():
            return []
        results = self.analyzer.analyze(text=text, language=self.language, entities=entities, score_threshold=LEAST)
        return [
            Span(r.start, r.end, ENTITIES[r.entity_type], "presidio", min(1.0, float(r.score)))
            for r in results
            if r.entity_type in entities and r.end > r.start
        ]


@lru_cache(maxsize=4)
def load(model: str, path: str = "$") -> Presidio:
    """Return a finder with the spaCy model called `model`, loaded once.

    Raises:
        ConfigError: if Presidio or the model is not installed.
    """
    language = model.partition("_")[0]
    try:
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError as e:
        raise ConfigError("names and addresses need Presidio: pip install 'fairlead[presidio]'", path=path) from e
    models = [{"lang_code": language, "model_name": model}]
    try:
        engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
        analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
    except (OSError, SystemExit) as e:
        # Presidio tries to download a model that is missing, and ends the process if it cannot.
        raise ConfigError(f"install the spaCy model: python -m spacy download {model}", path=path) from e
    return Presidio(analyzer=analyzer, language=language)
