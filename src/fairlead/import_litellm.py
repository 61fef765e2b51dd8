"""Read a LiteLLM proxy config's `model_list` as targets. Nothing is dropped silently: what has no counterpart is told in a note.

Azure, Bedrock, Vertex and Gemini become targets of their own types, with their endpoints, regions and projects.

Keys are taken as references (``os.environ/NAME`` becomes ``${NAME}``). A key that is written out is never copied: its target gets a
reference to a variable named after it, and a note says so. Fallback lists and router settings have no counterpart: routes do that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from fairlead.discover import ROUTE, Found, free_name, list_price, plain_name
from fairlead.errors import ConfigError
from fairlead.secret import Secret
from fairlead.types import Profile

# LiteLLM's provider prefix -> wire format, base URL, variable of the key.
PROVIDERS: Final[dict[str, tuple[str, str | None, str | None]]] = {
    "openai": ("openai_chat", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ("anthropic_messages", "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    "hosted_vllm": ("openai_chat", None, None),
    "openai_like": ("openai_chat", None, None),
    "lm_studio": ("openai_chat", "http://127.0.0.1:1234/v1", None),
    "ollama": ("openai_chat", "http://127.0.0.1:11434", None),
    "ollama_chat": ("openai_chat", "http://127.0.0.1:11434", None),
    "openrouter": ("openai_chat", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "groq": ("openai_chat", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "together_ai": ("openai_chat", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "mistral": ("openai_chat", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "deepseek": ("openai_chat", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "xai": ("openai_chat", "https://api.x.ai/v1", "XAI_API_KEY"),
    "fireworks_ai": ("openai_chat", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "gemini": ("gemini", "https://generativelanguage.googleapis.com/v1beta", "GEMINI_API_KEY"),
    "azure": ("azure_openai", None, "AZURE_API_KEY"),
    "bedrock": ("bedrock", None, None),
    "vertex_ai": ("vertex", None, None),
}

# LiteLLM's prefix -> our name of a server of this kind, where its address does not tell.
_SERVERS: Final = {
    "hosted_vllm": "vllm",
    "lm_studio": "lmstudio",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "openrouter": "openrouter",
    "groq": "groq",
    "together_ai": "together",
    "mistral": "mistral",
    "deepseek": "deepseek",
    "xai": "xai",
    "fireworks_ai": "fireworks",
}
# Wire format -> LiteLLM's parameter -> (our argument, whether it is a secret).
_OPTIONS: Final[dict[str, dict[str, tuple[str, bool]]]] = {
    "azure_openai": {"api_version": ("api_version", False), "azure_ad_token": ("token", True)},
    "bedrock": {
        "aws_region_name": ("region", False),
        "aws_profile_name": ("profile_name", False),
        "aws_bedrock_runtime_endpoint": ("base_url", False),
        "aws_access_key_id": ("access_key", True),
        "aws_secret_access_key": ("secret_key", True),
        "aws_session_token": ("session_token", True),
    },
    "vertex": {
        "vertex_project": ("project", False),
        "vertex_location": ("location", False),
        "vertex_credentials": ("credentials", False),
    },
}
_NO_ADDRESS: Final = ("bedrock", "vertex")
"""Formats whose addresses follow from region or location."""

_PRICES: Final = {
    "input_cost_per_token": "input_usd_per_mtok",
    "cache_read_input_token_cost": "cached_input_usd_per_mtok",
    "output_cost_per_token": "output_usd_per_mtok",
}
_NO_KEY: Final = ("", "none", "null", "empty", "dummy", "not-needed", "sk-no-key-required")
"""What is written for a server that wants no key, since LiteLLM's client insists on one."""
_SIZES: Final = {"max_input_tokens": "context_tokens", "max_output_tokens": "max_output_tokens"}


def read(path: str | Path) -> tuple[list[Found], list[str]]:
    """Return (targets, notes on what was changed or left out).

    Raises:
        ConfigError: if the file cannot be read or has no `model_list`.
    """
    try:
        data = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        # The parser's own message may quote the line it stopped at, key and all.
        raise ConfigError(f"{path} is not YAML") from e
    return convert(data)


def convert(data: Any) -> tuple[list[Found], list[str]]:
    """Return (targets, notes) of a config that has been read. Raises `ConfigError` if it has no `model_list`."""
    models = data.get("model_list") if isinstance(data, Mapping) else None
    if not isinstance(models, list):
        raise ConfigError("this is not a LiteLLM proxy config: it has no model_list", path="$.model_list")
    found: list[Found] = []
    notes = [f"{key}: left out, it has no counterpart here" for key in data if key != "model_list"]
    for i, entry in enumerate(models):
        at = f"model_list[{i}]"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("litellm_params"), Mapping):
            notes.append(f"{at}: left out, it has no litellm_params")
            continue
        target = _target(entry, at, {f.name for f in found}, notes)
        if target is not None:
            found.append(target)
    return found, notes


def _target(entry: Mapping[str, Any], at: str, taken: set[str], notes: list[str]) -> Found | None:
    given = dict(entry["litellm_params"])
    info = dict(entry.get("model_info") or {})
    full = str(given.pop("model", ""))
    provider, slash, model = full.partition("/")
    if not slash:
        provider, model = ("anthropic" if full.startswith("claude") else "openai"), full
    if provider not in PROVIDERS or not model:
        notes.append(f"{at}: left out, no wire format is known for {full!r}; known: {', '.join(PROVIDERS)}")
        return None
    kind, base_url, variable = PROVIDERS[provider]
    name = plain_name(str(entry.get("model_name") or model))
    if name == ROUTE:
        name = f"{ROUTE}-target"
        notes.append(f"{at}: {ROUTE} is the name of the route, so the target is called {name}")
    if name in taken:
        again, name = name, free_name(name, taken)
        notes.append(f"{at}: {again} is there already, so this one is called {name}; the route chooses among them")
    own_url = given.pop("api_base", None) or given.pop("base_url", None)
    given.pop("base_url", None)
    if own_url is not None:
        base_url = _url(str(own_url), at, notes)
    if base_url is None and (own_url is not None or kind not in _NO_ADDRESS):
        notes.append(f"{at}: left out, {provider} needs an api_base" + (" that is a plain URL" if own_url else ""))
        return None
    base_url = (base_url or "").rstrip("/")
    if provider in ("ollama", "ollama_chat") and not base_url.endswith("/v1"):
        base_url += "/v1"
    key = given.pop("api_key", None)
    if key is not None and str(key).strip().lower() in _NO_KEY:
        variable = None
    elif key is not None:
        variable = _variable(str(key), name, at, notes)
    elif own_url is not None and variable is not None and kind != "azure_openai":
        notes.append(
            f"{at}: it has its own api_base and no api_key, so none is sent there; add api_key if it wants one"
        )
        variable = None
    options = _options(kind, given, name, at, notes)
    if kind == "openai_chat" and own_url is not None and provider in _SERVERS:
        options["provider"] = _SERVERS[provider]
    if kind == "azure_openai":
        options["endpoint"], base_url = base_url, ""
        if "token" in options:
            variable = None
    if kind == "bedrock":
        model = re.sub(r"^(?:converse|converse_like|invoke)/", "", model)
        if len({"access_key", "secret_key"} & set(options)) == 1:
            for half in ("access_key", "secret_key", "session_token"):
                options.pop(half, None)
            notes.append(
                f"{at}: one of access key and secret key is missing, so AWS's own chain of credentials is asked"
            )
    if kind == "vertex" and "/" in model:
        notes.append(f"{at}: left out, of Vertex only the models of Google and Anthropic are known, not {model!r}")
        return None
    profile: dict[str, Any] = {}
    for source in (info, given):
        for theirs, ours in _PRICES.items():
            if (usd := _number(source, theirs, at, notes)) is not None:
                profile[ours] = round(usd * 1e6, 9)
        for theirs, ours in _SIZES.items():
            if (size := _number(source, theirs, at, notes)) is not None:
                profile[ours] = int(size)
    if not {"input_usd_per_mtok", "output_usd_per_mtok"} & set(profile) and (price := list_price(model)) is not None:
        profile |= {
            "input_usd_per_mtok": price.input_usd_per_mtok,
            "output_usd_per_mtok": price.output_usd_per_mtok,
        }
        notes.append(f"{at}: it names no price, so {name} has the list price that Fairlead knows of {model}; check it")
    info.pop("id", None)
    for key_left in sorted(given):
        notes.append(f"{at}.litellm_params.{key_left}: left out, it has no counterpart here")
    for key_left in sorted(info):
        notes.append(f"{at}.model_info.{key_left}: left out, it has no counterpart here")
    for key_left in sorted(set(entry) - {"model_name", "litellm_params", "model_info"}):
        notes.append(f"{at}.{key_left}: left out, it has no counterpart here")
    return Found(
        name=name,
        type=kind,
        model=model,
        base_url=base_url or None,
        key=variable,
        options=options,
        profile=Profile(**profile),
        source=f"{at} of the LiteLLM config",
    )


def _options(kind: str, given: dict[str, Any], name: str, at: str, notes: list[str]) -> dict[str, str]:
    """Take what a wire format's own arguments say out of `given`."""
    out: dict[str, str] = {}
    for theirs, (ours, secret) in _OPTIONS.get(kind, {}).items():
        value = given.pop(theirs, None)
        if value is None:
            continue
        text = str(value)
        if secret:
            out[ours] = "${" + _variable(text, name, at, notes, of=theirs) + "}"
        elif text.startswith("os.environ/"):
            notes.append(f"{at}: {theirs} is taken from a variable; write it into the config as {ours}")
        elif ours == "credentials" and (not isinstance(value, str) or text.lstrip().startswith("{")):
            notes.append(f"{at}: {theirs} is written out and was not copied; write the path of a file as {ours}")
        else:
            out[ours] = text
    return out


def _variable(key: str, name: str, at: str, notes: list[str], *, of: str = "api_key") -> str:
    try:
        return Secret(key).name
    except ConfigError:
        variable = re.sub(r"\W", "_", name).upper() + "_" + of.upper()
        if variable[0].isdigit():
            variable = "_" + variable
        notes.append(f"{at}: its {of} is written out and was not copied; export it as {variable}")
        return variable


def _url(url: str, at: str, notes: list[str]) -> str | None:
    if url.startswith("os.environ/") or not url.startswith(("http://", "https://")) or "@" in url:
        notes.append(f"{at}: its api_base is not a plain URL; write it into the config")
        return None
    return url


def _number(source: dict[str, Any], key: str, at: str, notes: list[str]) -> float | None:
    value = source.pop(key, None)
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        notes.append(f"{at}: {key} is not a number")
        return None
