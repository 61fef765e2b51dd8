"""Name -> class, per family, imported on use. Adding a method adds one line here.

Outside packages add theirs through entry points named ``fairlead.<family>``; built-in names win.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from fairlead.errors import UnknownName

CATALOG: dict[str, dict[str, str]] = {
    "signals": {
        "length": "fairlead.signals.length:Length",
        "marks": "fairlead.signals.marks:Marks",
        "language": "fairlead.signals.language:Language",
        "keyword": "fairlead.signals.keyword:Keyword",
        "embedding": "fairlead.signals.embedding:Embedding",
        "conversation": "fairlead.signals.conversation:Conversation",
    },
    "embeddings": {
        "hashing": "fairlead.embeddings.hashing:Hashing",
    },
    "features": {
        "features": "fairlead.predictors.features:Features",
    },
    "predictors": {
        "mean": "fairlead.predictors.mean:Mean",
        "knn": "fairlead.predictors.knn:KNN",
        "ridge": "fairlead.predictors.ridge:Ridge",
        "logistic": "fairlead.predictors.logistic:Logistic",
    },
    "policies": {
        "fixed": "fairlead.policies.fixed:Fixed",
        "random": "fairlead.policies.random:Random",
        "round_robin": "fairlead.policies.round_robin:RoundRobin",
        "utility": "fairlead.policies.utility:Utility",
        "lin_ucb": "fairlead.policies.lin_ucb:LinUCB",
        "thompson": "fairlead.policies.thompson:Thompson",
        "rules": "fairlead.policies.rules:Rules",
    },
    "plans": {
        "single": "fairlead.plans.single:Single",
        "fallback": "fairlead.plans.fallback:Fallback",
        "cascade": "fairlead.plans.cascade:Cascade",
        "vote": "fairlead.plans.vote:Vote",
    },
    "targets": {
        "openai_chat": "fairlead.targets.openai_chat:OpenAIChat",
        "anthropic_messages": "fairlead.targets.anthropic_messages:AnthropicMessages",
        "local": "fairlead.targets.local:Local",
        "scripted": "fairlead.targets.scripted:Scripted",
    },
}


def names(family: str) -> list[str]:
    """List the names known in `family`, built in or from installed packages."""
    return sorted({*_family(family), *(e.name for e in entry_points(group=f"fairlead.{family}"))})


def find(family: str, name: str) -> type[Any]:
    """Import and return the class called `name` in `family`.

    Raises:
        UnknownName: with the nearest known names.
    """
    path = _family(family).get(name)
    if path is None:
        for entry in entry_points(group=f"fairlead.{family}"):
            if entry.name == name:
                return _checked(entry.load())
        raise UnknownName(f"name in {family}", name, names(family))
    module, _, attribute = path.partition(":")
    return _checked(getattr(importlib.import_module(module), attribute))


def _family(family: str) -> dict[str, str]:
    try:
        return CATALOG[family]
    except KeyError:
        raise UnknownName("family", family, CATALOG) from None


def _checked(found: Any) -> type[Any]:
    if not isinstance(found, type):
        raise TypeError(f"{found!r} is not a class")
    return found
