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
        "ngrams": "fairlead.signals.ngrams:Ngrams",
        "style": "fairlead.signals.style:Style",
        "language": "fairlead.signals.language:Language",
        "keyword": "fairlead.signals.keyword:Keyword",
        "embedding": "fairlead.signals.embedding:Embedding",
        "conversation": "fairlead.signals.conversation:Conversation",
        "pii": "fairlead.signals.pii:PII",
        "injection": "fairlead.signals.injection:Injection",
        "facts": "fairlead.signals.facts:Facts",
        "langid": "fairlead.signals.langid:Langid",
        "tokens": "fairlead.signals.tokens:Tokens",
        "similarity": "fairlead.signals.similarity:Similarity",
        "complexity": "fairlead.signals.complexity:Complexity",
        "modality": "fairlead.signals.modality:Modality",
        "pictures": "fairlead.signals.pictures:Pictures",
        "structure": "fairlead.signals.structure:Structure",
        "identity": "fairlead.signals.identity:Identity",
        "clock": "fairlead.signals.clock:Clock",
        "quota": "fairlead.signals.quota:Quota",
        "custom": "fairlead.signals.custom:Custom",
        "classifier": "fairlead.signals.classifier:Classifier",
        "domain": "fairlead.signals.domain:Domain",
    },
    "embeddings": {
        "hashing": "fairlead.embeddings.hashing:Hashing",
        "onnx": "fairlead.embeddings.onnx:Onnx",
        "endpoint": "fairlead.embeddings.endpoint:Endpoint",
    },
    "caches": {
        "memory": "fairlead.caches.memory:Memory",
        "sqlite": "fairlead.caches.sqlite:SQLite",
        "redis": "fairlead.caches.redis:Redis",
    },
    "features": {
        "features": "fairlead.predictors.features:Features",
        "nodes": "fairlead.predictors.nodes:Nodes",
    },
    "predictors": {
        "mean": "fairlead.predictors.mean:Mean",
        "knn": "fairlead.predictors.knn:KNN",
        "ridge": "fairlead.predictors.ridge:Ridge",
        "irt": "fairlead.predictors.irt:IRT",
        "profile": "fairlead.predictors.profile:Profiled",
        "logistic": "fairlead.predictors.logistic:Logistic",
        "blend": "fairlead.predictors.blend:Blend",
        "forest": "fairlead.predictors.forest:Forest",
        "mf": "fairlead.predictors.mf:MF",
        "sw_ranking": "fairlead.predictors.sw_ranking:SWRanking",
        "mlp": "fairlead.predictors.mlp:MLP",
        "tryage": "fairlead.predictors.tryage:Tryage",
        "clusters": "fairlead.predictors.clusters:Clusters",
        "graph": "fairlead.predictors.graph:Graph",
        "pilots": "fairlead.predictors.pilots:Pilots",
        "gbm": "fairlead.predictors.gbm:GBM",
        "soft_gate": "fairlead.predictors.soft_gate:SoftGate",
        "agents": "fairlead.predictors.agents:Agents",
        "apo": "fairlead.predictors.apo:APO",
        "gain": "fairlead.predictors.gain:Gain",
        "skills": "fairlead.predictors.skills:Skills",
    },
    "policies": {
        "fixed": "fairlead.policies.fixed:Fixed",
        "random": "fairlead.policies.random:Random",
        "round_robin": "fairlead.policies.round_robin:RoundRobin",
        "utility": "fairlead.policies.utility:Utility",
        "lin_ucb": "fairlead.policies.lin_ucb:LinUCB",
        "thompson": "fairlead.policies.thompson:Thompson",
        "epsilon_greedy": "fairlead.policies.epsilon_greedy:EpsilonGreedy",
        "ucb1": "fairlead.policies.ucb1:UCB1",
        "beta_thompson": "fairlead.policies.beta_thompson:BetaThompson",
        "ema": "fairlead.policies.ema:EMA",
        "corral": "fairlead.policies.corral:Corral",
        "portfolio": "fairlead.policies.portfolio:Portfolio",
        "rules": "fairlead.policies.rules:Rules",
        "guarded": "fairlead.policies.guarded:Guarded",
        "shadow": "fairlead.policies.shadow:Shadow",
        "canary": "fairlead.policies.canary:Canary",
        "floor": "fairlead.policies.floor:Floor",
        "budget": "fairlead.policies.budget:Budget",
        "promise": "fairlead.policies.promise:Promise",
        "glimpse_share": "fairlead.policies.glimpse_share:GlimpseShare",
        "pheromone": "fairlead.policies.pheromone:Pheromone",
        "masked": "fairlead.policies.masked:Masked",
        "graph": "fairlead.policies.graph:Graph",
    },
    "answers": {
        "text": "fairlead.answers.text:Text",
        "last_line": "fairlead.answers.last_line:LastLine",
        "number": "fairlead.answers.number:Number",
        "choice": "fairlead.answers.choice:Choice",
        "code": "fairlead.answers.code:Code",
        "json": "fairlead.answers.json:JSON",
        "free": "fairlead.answers.free:Free",
    },
    "plans": {
        "single": "fairlead.plans.single:Single",
        "fallback": "fairlead.plans.fallback:Fallback",
        "cascade": "fairlead.plans.cascade:Cascade",
        "vote": "fairlead.plans.vote:Vote",
        "checked": "fairlead.plans.checked:Checked",
        "within": "fairlead.plans.within:Within",
        "topology": "fairlead.plans.topology:Topology",
        "relay": "fairlead.plans.relay:Relay",
        "sigma": "fairlead.plans.sigma:Sigma",
        "merge": "fairlead.plans.merge:Merge",
        "modality": "fairlead.plans.modality:Modality",
        "hedge": "fairlead.plans.hedge:Hedge",
        "retrieve": "fairlead.plans.retrieve:Retrieve",
        "rounds": "fairlead.plans.rounds:Rounds",
        "glimpse": "fairlead.plans.glimpse:Glimpse",
        "fast_slow": "fairlead.plans.fast_slow:FastSlow",
        "verify": "fairlead.plans.verify:Verify",
        "breadth": "fairlead.plans.breadth:Breadth",
        "refine": "fairlead.plans.refine:Refine",
        "prompting": "fairlead.plans.prompting:Prompting",
        "intention": "fairlead.plans.intention:Intention",
        "mode": "fairlead.plans.mode:Mode",
        "recruit": "fairlead.plans.recruit:Recruit",
    },
    "scorers": {
        "lexical": "fairlead.scorers.lexical:Lexical",
        "nli": "fairlead.scorers.nli:NLI",
    },
    "actions": {
        "mask": "fairlead.actions.mask:Mask",
        "check": "fairlead.actions.check:Check",
        "block": "fairlead.actions.block:Block",
        "cache": "fairlead.actions.cache:Cache",
        "prompt": "fairlead.actions.prompt:Prompt",
        "tag": "fairlead.actions.tag:Tag",
    },
    "targets": {
        "openai_chat": "fairlead.targets.openai_chat:OpenAIChat",
        "anthropic_messages": "fairlead.targets.anthropic_messages:AnthropicMessages",
        "bedrock": "fairlead.targets.bedrock:Bedrock",
        "azure_openai": "fairlead.targets.azure_openai:AzureOpenAI",
        "gemini": "fairlead.targets.gemini:Gemini",
        "vertex": "fairlead.targets.vertex:Vertex",
        "local": "fairlead.targets.local:Local",
        "embedder": "fairlead.targets.embedder:Embedder",
        "eye": "fairlead.targets.eye:Eye",
        "scripted": "fairlead.targets.scripted:Scripted",
        "gate": "fairlead.targets.gate:Gate",
        "index": "fairlead.targets.index:Index",
        "strategy": "fairlead.targets.strategy:Strategy",
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
