"""What is publicly known of models: contexts, prices of each kind of token, modalities. The catalogue is ``models.yaml``, beside this file.

A model is found by its provider and its name, exactly, or with a date at the end taken off; never by a guess. A file of the user's goes over the
catalogue, and a target's own ``profile`` over both, field by field. What nobody knows stays unknown. Ours, no paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import Struct

from fairlead.errors import ConfigError
from fairlead.targets.providers import known
from fairlead.types import Profile

_DATE: Final = re.compile(r"(?:-\d{4}-\d\d-\d\d|[-@]20\d{6})\Z")
"""A date at the end of a model's name: 2025-08-07, or 20250929."""
_ABOUT: Final = ("source", "as_of", "note")


class Entry(Struct, frozen=True, kw_only=True):
    """One model of the catalogue."""

    provider: str
    model: str
    fields: dict[str, Any]
    """What is known, as arguments of `Profile`."""
    source: str
    as_of: str
    """``YYYY-MM-DD``"""
    note: str = ""

    @property
    def profile(self) -> Profile:
        """What is known, as a profile."""
        return msgspec.convert(self.fields, Profile, strict=False)


class Catalogue:
    """Entries by provider and model."""

    def __init__(self, entries: Mapping[tuple[str, str], Entry]) -> None:
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def find(self, provider: str, model: str) -> Entry | None:
        """Return the entry of `model`, or of what it is without a date at its end; None if it is not known."""
        entry = self._entries.get((provider, model))
        return entry or self._entries.get((provider, _DATE.sub("", model)))

    def over(self, other: Catalogue) -> Catalogue:
        """Return both, with `other`'s fields over one's own."""
        entries = dict(self._entries)
        for key, entry in other._entries.items():
            old = entries.get(key)
            if old is not None:
                entry = msgspec.structs.replace(entry, fields={**old.fields, **entry.fields})
            entries[key] = entry
        return Catalogue(entries)


class _Provider(Struct, forbid_unknown_fields=True):
    models: dict[str, dict[str, Any]]
    source: str = ""
    as_of: date | None = None
    note: str = ""
    every: dict[str, Any] = {}


def lookup(provider: str, model: str) -> Profile | None:
    """Return what the shipped catalogue knows of a model; None if it does not know it."""
    entry = shipped().find(provider, model)
    return None if entry is None else entry.profile


@lru_cache(maxsize=1)
def shipped() -> Catalogue:
    """Return the catalogue that ships with Fairlead."""
    return read(yaml.safe_load(files("fairlead").joinpath("models.yaml").read_text("utf-8")), name="models.yaml")


def load(path: str | Path | None) -> Catalogue:
    """Return the catalogue with the file at `path`, if one is given, over it. Raises `ConfigError` if that cannot be read."""
    if path is None:
        return shipped()
    try:
        data = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}", path="$.profiles") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} is not YAML: {e}", path="$.profiles") from e
    return shipped().over(read(data, name=str(path)))


def read(data: Any, *, name: str) -> Catalogue:
    """Read a catalogue from builtin data; `name` is for messages. Raises `ConfigError` with what is wrong in it."""
    try:
        providers = msgspec.convert(data, dict[str, _Provider])
    except msgspec.ValidationError as e:
        raise ConfigError(f"{name}: {e}", path="$.profiles") from e
    entries: dict[tuple[str, str], Entry] = {}
    for provider, p in providers.items():
        for model, said in p.models.items():
            fields = {**p.every, **{k: v for k, v in said.items() if k not in _ABOUT}}
            notes = [n for n in (said.get("note", ""), p.note) if n]
            entry = Entry(
                provider=provider,
                model=model,
                fields=fields,
                source=str(said.get("source", p.source)),
                as_of=str(said.get("as_of", p.as_of or "")),
                note="; ".join(notes),
            )
            unknown = set(fields) - set(Profile.__struct_fields__)
            try:
                if unknown:
                    raise ValueError(f"a profile has no {', '.join(sorted(unknown))}")
                _ = entry.profile
            except (ValueError, msgspec.ValidationError) as e:
                raise ConfigError(f"{name}: {provider}.models.{model}: {e}", path="$.profiles") from e
            entries[provider, model] = entry
    return Catalogue(entries)


# ------------------------------------------------------------------------------------------------------------- targets


def provider_of(spec: Mapping[str, Any]) -> str:
    """Name the provider that a target's spec asks, as far as its type and address tell; empty if they do not.

    A deployment on Azure may have any name, and Bedrock and Vertex have prices of their own by region: these are not looked up.
    """
    said = spec.get("base_url")
    url = said if isinstance(said, str) else ""
    match spec.get("type"):
        case "openai_chat":
            name = spec.get("provider")
            return known(name if isinstance(name, str) else None, url or "https://api.openai.com/v1")[0]
        case "anthropic_messages" if not url or urlsplit(url).hostname == "api.anthropic.com":
            return "anthropic"
        case "gemini" if not url or urlsplit(url).hostname == "generativelanguage.googleapis.com":
            return "gemini"
    return ""


def entry_of(spec: Any, catalogue: Catalogue) -> Entry | None:
    """Return what the catalogue knows of the model that a target's spec names."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("model"), str):
        return None
    return catalogue.find(provider_of(spec), spec["model"])


def filled(spec: Any, catalogue: Catalogue) -> Any:
    """Return a target's spec with what the catalogue knows of its model under its own ``profile``."""
    entry = entry_of(spec, catalogue)
    if entry is None:
        return spec
    own = spec.get("profile")
    if own is not None and not isinstance(own, Mapping):
        return spec  # the builder says what is wrong with it
    return {**spec, "profile": {**entry.fields, **(own or {})}}


def priced(profile: Profile) -> bool:
    """Whether the prices of input and output are known."""
    return profile.input_usd_per_mtok is not None and profile.output_usd_per_mtok is not None
