"""What the signal `pii` and the action `mask` share: which kinds are looked for, and by what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fairlead.detect import credentials, personal
from fairlead.detect.span import Span, settled
from fairlead.errors import ConfigError, suggest

_MOST_KEY: Final = 60


class Finder:
    """Finds `kinds` in texts. Cheap to make: Presidio is loaded by `load`, or at the first text.

    Args:
        kinds: what to look for; None: all, names and addresses among them if there is a `model`.
        without: what not to look for.
        model: a spaCy model for Presidio.
        path: of the arguments, for errors.

    Raises:
        ConfigError: for a kind that is not known, or that needs a model where none is given.
    """

    __slots__ = ("_learned", "_presidio", "kinds", "model", "path")

    def __init__(
        self, *, kinds: Sequence[str] | None, without: Sequence[str] = (), model: str | None = None, path: str = "$"
    ) -> None:
        known = (*personal.KINDS, *personal.LEARNED)
        for name, given in (("kinds", kinds or ()), ("allow", without)):
            if isinstance(given, str):
                raise ConfigError("expected a list of kinds", path=f"{path}.{name}")
            for i, kind in enumerate(given):
                if kind not in known:
                    raise ConfigError(f"no such kind; {suggest(str(kind), known)}", path=f"{path}.{name}[{i}]")
                if name == "kinds" and kind in personal.LEARNED and model is None:
                    raise ConfigError(
                        f"{kind} needs a language model: give presidio: en_core_web_lg", path=f"{path}.kinds[{i}]"
                    )
        wanted = kinds if kinds is not None else (known if model is not None else personal.KINDS)
        self.kinds = tuple(k for k in known if k in wanted and k not in without)
        self.model, self.path = model, path
        self._learned = model is not None and any(k in self.kinds for k in personal.LEARNED)
        self._presidio: Any = None

    def load(self) -> None:
        """Load what takes long. Raises `ConfigError` if something is not installed."""
        if self._learned and self._presidio is None and self.model is not None:
            from fairlead.detect.presidio import load

            self._presidio = load(self.model, f"{self.path}.presidio")

    def find(self, text: str, key: str = "") -> list[Span]:
        """Return what `text` holds, by place, none overlapping; `key` is what it stands at, which says what it is."""
        if key:
            if "password" in self.kinds and (password := credentials.named(key, text)) is not None:
                return [password]
            head = f"{key[:_MOST_KEY]}="
            moved = self.find(head + text)
            at = len(head)
            return [Span(max(0, s.start - at), s.end - at, s.kind, s.form, s.score) for s in moved if s.end > at]
        found = personal.find(text, kinds=self.kinds)
        if self._learned:
            self.load()
            found = settled([*found, *self._presidio.find(text, kinds=self.kinds)])
        return found
