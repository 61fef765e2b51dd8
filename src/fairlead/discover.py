"""Find what a first config can use: keys in the environment, model servers on this machine, else the laboratory's own models.

Only loopback is asked, one short request a port; no key is read beyond whether it is set. Ours, no paper.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Final
from urllib.request import ProxyHandler, build_opener

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from fairlead.types import Profile

PROBE_SECONDS: Final = 0.3
ROUTE: Final = "auto"
"""The route of a first config; no target may be called the same."""


class Found(Struct, frozen=True, kw_only=True):
    """A target that a config may name."""

    name: str
    type: str
    model: str
    base_url: str | None = None
    key: str | None = None
    """The environment variable that holds its key."""
    mode: str | None = None
    """How one of the laboratory's models is asked, if not directly."""
    options: dict[str, str | float] = {}
    """Further arguments of the target."""
    profile: Profile = Profile()
    source: str = ""
    """Where it was found, in words."""


class Provider(Struct, frozen=True, kw_only=True):
    """A provider whose key may be in the environment. Models are (name, model, USD per million tokens in, out)."""

    key: str
    type: str
    base_url: str
    models: tuple[tuple[str, str, float | None, float | None], ...]


# Names and prices are starting points that age; the config that is written says so.
PROVIDERS: Final = (
    Provider(
        key="OPENAI_API_KEY",
        type="openai_chat",
        base_url="https://api.openai.com/v1",
        models=(("gpt-small", "gpt-4o-mini", 0.15, 0.60), ("gpt-large", "gpt-4o", 2.50, 10.00)),
    ),
    Provider(
        key="ANTHROPIC_API_KEY",
        type="anthropic_messages",
        base_url="https://api.anthropic.com",
        models=(
            ("claude-small", "claude-3-5-haiku-latest", 0.80, 4.00),
            ("claude-large", "claude-sonnet-4-0", 3.00, 15.00),
        ),
    ),
    Provider(
        key="GEMINI_API_KEY",
        type="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        models=(
            ("gemini-small", "gemini-2.5-flash-lite", 0.10, 0.40),
            ("gemini-large", "gemini-2.5-flash", 0.30, 2.50),
        ),
    ),
    Provider(
        key="OPENROUTER_API_KEY",
        type="openai_chat",
        base_url="https://openrouter.ai/api/v1",
        models=(
            ("openrouter-small", "openai/gpt-4o-mini", 0.15, 0.60),
            ("openrouter-large", "openai/gpt-4o", 2.50, 10.00),
        ),
    ),
    Provider(
        key="GROQ_API_KEY",
        type="openai_chat",
        base_url="https://api.groq.com/openai/v1",
        models=(
            ("groq-small", "llama-3.1-8b-instant", 0.05, 0.08),
            ("groq-large", "llama-3.3-70b-versatile", 0.59, 0.79),
        ),
    ),
    Provider(
        key="TOGETHER_API_KEY",
        type="openai_chat",
        base_url="https://api.together.xyz/v1",
        models=(("together-large", "meta-llama/Llama-3.3-70B-Instruct-Turbo", 0.88, 0.88),),
    ),
    Provider(
        key="MISTRAL_API_KEY",
        type="openai_chat",
        base_url="https://api.mistral.ai/v1",
        models=(
            ("mistral-small", "mistral-small-latest", None, None),
            ("mistral-large", "mistral-large-latest", None, None),
        ),
    ),
    Provider(
        key="XAI_API_KEY",
        type="openai_chat",
        base_url="https://api.x.ai/v1",
        models=(("grok", "grok-4.5", None, None),),
    ),
    Provider(
        key="DEEPSEEK_API_KEY",
        type="openai_chat",
        base_url="https://api.deepseek.com/v1",
        models=(("deepseek", "deepseek-flash", None, None),),
    ),
)

SERVERS: Final = {11434: "Ollama", 8000: "vLLM", 8080: "llama.cpp", 1234: "LM Studio"}

Probe = Callable[[int], tuple[str, ...]]


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


def find(environ: Mapping[str, str] | None = None, probe: Probe | None = None) -> list[Found]:
    """Return the targets that are within reach, each under a name of its own; the laboratory's if there are none."""
    found: list[Found] = []
    for f in [*keys(os.environ if environ is None else environ), *servers(probe or models_at)]:
        found.append(replace(f, name=free_name(f.name, [ROUTE, *(g.name for g in found)])))
    return found or laboratory()


def keys(environ: Mapping[str, str]) -> list[Found]:
    """Return targets of the providers whose keys are set."""
    return [
        Found(
            name=name,
            type=p.type,
            model=model,
            base_url=p.base_url,
            key=p.key,
            profile=Profile(input_usd_per_mtok=usd_in, output_usd_per_mtok=usd_out),
            source=f"{p.key} is set",
        )
        for p in PROVIDERS
        if environ.get(p.key, "").strip()
        for name, model, usd_in, usd_out in p.models
    ]


def servers(probe: Probe) -> list[Found]:
    """Return the models of servers on the usual ports. They run on this machine, so they cost nothing a token."""
    with ThreadPoolExecutor(max_workers=len(SERVERS)) as threads:
        answers = dict(zip(SERVERS, threads.map(probe, SERVERS), strict=True))
    out: list[Found] = []
    for port, models in answers.items():
        for model in models:
            taken = {f.name for f in out}
            name = plain_name(model)
            out.append(
                Found(
                    name=name if name not in taken else f"{name}-{port}",
                    type="openai_chat",
                    model=model,
                    base_url=f"http://127.0.0.1:{port}/v1",
                    profile=Profile(input_usd_per_mtok=0.0, output_usd_per_mtok=0.0),
                    source=f"{SERVERS[port]} (or its like) answers on port {port}",
                )
            )
    return out


def laboratory() -> list[Found]:
    """Return the laboratory's models, which need neither key nor network: those that the demo and `fairlead lab table` ask."""
    from fairlead.lab.pool import TARGETS

    found = []
    for t in TARGETS:
        mode, told = (None, "") if t.mode == "direct" else (t.mode, ", told to work before it answers")
        source = f"a tiny model that ships with Fairlead{told}"
        found.append(Found(name=t.name, type="local", model=t.model, mode=mode, source=source))
    return found


def list_price(model: str) -> Profile | None:
    """Return the price of a provider's model as far as `PROVIDERS` knows it."""
    for p in PROVIDERS:
        for _, known, usd_in, usd_out in p.models:
            if known == model and usd_in is not None and usd_out is not None:
                return Profile(input_usd_per_mtok=usd_in, output_usd_per_mtok=usd_out)
    return None


def free_name(name: str, taken: Collection[str]) -> str:
    """Return `name`, or if it is taken, the first of ``name-2``, ``name-3`` … that is not."""
    if name not in taken:
        return name
    return next(n for k in range(2, len(taken) + 3) if (n := f"{name}-{k}") not in taken)


def models_at(port: int) -> tuple[str, ...]:
    """Ask ``/v1/models`` on a loopback port; () if nobody answers in time, or not in that format."""

    try:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/v1/models", timeout=PROBE_SECONDS) as reply:
            models = msgspec.json.decode(reply.read(1 << 20), type=_Models)
    except (OSError, HTTPException, msgspec.DecodeError, UnicodeDecodeError):
        return ()
    return tuple(m.id for m in models.data)


def plain_name(text: str) -> str:
    """Make a target's name of a model's: the last part of its path, and no marks that YAML or a URL would mind."""
    last = text.rstrip("/").rpartition("/")[2]
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in last).strip("-.") or "model"
