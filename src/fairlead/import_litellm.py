"""Read a LiteLLM proxy config as targets and routes. Nothing is dropped silently: what is not taken over is told in a note, with what to write
in its place where there is something.

Azure, Bedrock, Vertex and Gemini become targets of their own types, with their endpoints, regions and projects.

A name that clients use stays. An entry that has its `model_name` to itself is a target of that name. Several of one name become targets with
numbers, behind a route of the name which chooses among them at random, by LiteLLM's weights, and lets the others take over when one fails: what
`simple-shuffle` does. So does a name that has fallbacks: these take over last, with a share of 0.

Keys are taken as references (``os.environ/NAME`` becomes ``${NAME}``); addresses, regions and the like that stand in variables, as they are now. A key that is written out is never copied: its target gets a
reference to a variable named after it, and a note says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import Struct
from msgspec.structs import replace

from fairlead import profiles
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
_OPEN: Final = (
    *("model", "api_base", "base_url", "api_version"),
    *("aws_region_name", "aws_profile_name", "aws_bedrock_runtime_endpoint", "vertex_project", "vertex_location"),
)
"""What may stand in a variable and is no secret."""
_OF_VARIABLE: Final = "os.environ/"
_NO_ADDRESS: Final = ("bedrock", "vertex")
"""Formats whose addresses follow from region or location."""

_INSISTS: Final = ("anthropic_messages", "bedrock", "vertex")
"""Formats whose targets have a `max_tokens` for requests that name none."""
_PRICES: Final = {
    "input_cost_per_token": "input_usd_per_mtok",
    "cache_read_input_token_cost": "cached_input_usd_per_mtok",
    "cache_creation_input_token_cost": "cache_write_usd_per_mtok",
    "output_cost_per_token": "output_usd_per_mtok",
    "output_cost_per_reasoning_token": "reasoning_usd_per_mtok",
}
_NO_KEY: Final = ("", "none", "null", "empty", "dummy", "not-needed", "sk-no-key-required")
"""What is written for a server that wants no key, since LiteLLM's client insists on one."""
# `max_tokens` of a model_info is the older name of max_output_tokens, so it is read first.
_SIZES: Final = {
    "max_tokens": "max_output_tokens",
    "max_input_tokens": "context_tokens",
    "max_output_tokens": "max_output_tokens",
}
_CHAT: Final = ("chat", "completion", "responses")
"""Modes of models that are asked for answers."""
_SHARES: Final = ("weight", "rpm", "tpm")
"""What LiteLLM shuffles by: the first that every deployment of a name has."""

MOST: Final = 1e12
"""Seconds, tokens and prices above are mistakes."""

_KEY_LIMITS: Final = "`limits` of a key, a team or a tenant, and `profile: {concurrent: N}` of a target"
_SAMPLING: Final = "a target of type `strategy` sets fields of a request: `{type: strategy, of: NAME, fields: {…}}`"
_RETRIES: Final = "`retries` of the file, for the same target, and `fallbacks: N`, for others"
_BREAKER: Final = "`breaker` of the file; a rest grows with every failure"
_REDIS: Final = "`gateway.redis`"
_CACHE: Final = "the action `cache`"
_TRACES: Final = "nothing to set: every answer leaves a trace in the store, and `/metrics` is for Prometheus"
_GUARDS: Final = "`guards`, with signals that run here"

PARAMS: Final[dict[str, str]] = {
    "rpm": _KEY_LIMITS,
    "tpm": _KEY_LIMITS,
    "weight": "`weights` of the policy `random`, by target",
    "order": "a rule with `use: [first, second]`",
    "stream_timeout": "`timeout_seconds` bounds a whole call; the plan `hedge` asks another target when one is late",
    "max_retries": _RETRIES,
    "num_retries": _RETRIES,
    "temperature": _SAMPLING,
    "top_p": _SAMPLING,
    "max_tokens": _SAMPLING,
    "extra_headers": "`headers` of the target",
    "organization": "`headers: {OpenAI-Organization: …}` of the target",
    "drop_params": "nothing to set: what a target's format cannot carry is left out and told in `x-fairlead-dropped`",
    "region_name": "`profile: {regions: […]}`",
    "tags": "`profile: {tags: […]}`, which guards can name; requests do not choose by it",
    "max_budget": "the policy `budget` of a route",
    "litellm_credential_name": "`api_key` of the target",
    "id": "a target goes by its name alone",
    "access_groups": "`routes` and `targets` of a key",
    "base_model": "its list price is taken where an entry names no price",
}
"""What an entry may say that is not taken over -> what does its work here. All of it stands in docs/guides/from-litellm.md."""

SETTINGS: Final[dict[str, str]] = {
    "routing_strategy": "routes over several deployments choose at random; a policy that weighs USD or seconds can take its place: "
    "`policy: {type: thompson, objective: {usd_weight: 10, seconds_weight: 0.01}}`",
    "default_fallbacks": "the route `auto`, where others take over by themselves; or write them as `fallbacks` of each name before you import",
    "context_window_fallbacks": "the route `auto`, where a target whose context is too small is not eligible",
    "max_fallbacks": "`fallbacks: N` of the file",
    "num_retries": _RETRIES,
    "retry_after": _RETRIES,
    "retry_policy": _RETRIES,
    "allowed_fails": _BREAKER,
    "cooldown_time": _BREAKER,
    "stream_timeout": PARAMS["stream_timeout"],
    "enable_pre_call_checks": "nothing to set: who is too small or resting is never asked",
    "redis_url": _REDIS,
    "redis_host": _REDIS,
    "redis_port": _REDIS,
    "redis_password": _REDIS,
    "cache": _CACHE,
    "cache_params": _CACHE,
    "cache_responses": _CACHE,
    "guardrails": _GUARDS,
    "drop_params": PARAMS["drop_params"],
    "success_callback": _TRACES,
    "failure_callback": _TRACES,
    "callbacks": _TRACES,
    "set_verbose": "`gateway.log.level`",
    "json_logs": "`gateway.log.format: json`",
    "max_budget": "the policy `budget` of a route, and `budgets` of keys, teams and tenants",
    "budget_duration": "`period` of a budget",
    "master_key": "`gateway.admin_keys`, for `/admin`: `fairlead key new --admin NAME`",
    "database_url": "`store`; nothing of LiteLLM's tables is read",
    "global_max_parallel_requests": "`gateway.max_in_flight`",
    "max_request_size_mb": "`gateway.max_body_bytes`",
    "environment_variables": "export them yourself where the gateway starts",
    "credential_list": "`api_key` of each target",
    "include": "import each of those files by itself",
}
"""What the other sections may say that is not taken over, as `PARAMS`."""
_SECTIONS: Final = ("router_settings", "litellm_settings", "general_settings")


class Route(Struct, frozen=True, kw_only=True):
    """A name that clients use and that no target has."""

    name: str
    shares: dict[str, float]
    """Target -> how often it is asked first, beside the others; 0: only when those have failed or may not answer."""
    source: str = ""
    """Where it comes from, in words."""


class Imported(Struct, frozen=True, kw_only=True):
    """What a LiteLLM config became."""

    targets: list[Found]
    notes: list[str]
    """What was changed or left out."""
    routes: list[Route] = []
    keeps_text: bool = True
    """False: prompts and answers were not to be logged."""


class _Entry(Struct, kw_only=True):
    """One entry of the model list that can be taken over. What is read of `given` and `info` is taken out of them."""

    at: str
    called: str
    """What clients ask for."""
    kind: str
    provider: str
    model: str
    base_url: str
    own_address: bool
    variable: str | None
    given: dict[str, Any]
    info: dict[str, Any]
    others: list[str]


def read(path: str | Path) -> Imported:
    """Read the file at `path`.

    Raises:
        ConfigError: if it cannot be read or has no `model_list`.
    """
    try:
        data = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        # The parser's own message may quote the line it stopped at, key and all.
        raise ConfigError(f"{path} is not YAML") from e
    return convert(data)


def convert(data: Any) -> Imported:
    """Take over a config that has been read. Raises `ConfigError` if it has no `model_list`."""
    models = data.get("model_list") if isinstance(data, Mapping) else None
    if not isinstance(models, list):
        raise ConfigError("this is not a LiteLLM proxy config: it has no model_list", path="$.model_list")
    notes: list[str] = []
    settings = _Settings(data)
    entries = [e for i, entry in enumerate(models) if (e := _entry(entry, f"model_list[{i}]", notes)) is not None]
    groups: dict[str, list[_Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.called, []).append(entry)
    renamed = ROUTE
    if ROUTE in groups:
        renamed = free_name(f"{ROUTE}-target", groups)
        notes.append(f"{groups[ROUTE][0].at}: {ROUTE} is the name of the route over all, so {renamed} stands for it")
        groups = {renamed if name == ROUTE else name: group for name, group in groups.items()}
    settings.renamed = renamed
    fallbacks = settings.fallbacks(groups, notes)
    aliases = settings.aliases(groups, notes)
    names = _names(groups, fallbacks, taken={ROUTE, *groups, *aliases})
    seconds = settings.seconds(notes)
    found = {e.at: _target(e, names[e.at], seconds, notes) for e in entries}
    ways: dict[str, Route] = {}
    for name, group in groups.items():
        shares = _shares(name, group, [names[e.at] for e in group], notes)
        for e in group:
            _leftovers(e, notes)
            # Vectors of one target are given for those of another only where both are said to be of one space.
            if len(group) > 1 and "embeddings" in (profile := found[e.at].profile).tasks:
                found[e.at] = replace(found[e.at], profile=replace(profile, space=name))
                notes.append(
                    f"{e.at}: its vectors count as those of the space {name}: check that its model is the same"
                )
        last = [names[e.at] for other in fallbacks.get(name, ()) for e in groups[other]]
        source = f"{len(group)} deployments of the LiteLLM config" if len(group) > 1 else "of the LiteLLM config"
        source += f", and its fallbacks {', '.join(fallbacks[name])}" if last else ""
        ways[name] = Route(name=name, shares=shares | dict.fromkeys(last, 0.0), source=source)
    for alias, name in aliases.items():
        ways[alias] = Route(name=alias, shares=ways[name].shares, source=f"another name of {name}")
    keeps_text = settings.keeps_text()
    return Imported(
        targets=list(found.values()),
        notes=[*notes, *settings.left()],
        routes=[way for name, way in ways.items() if name not in names.values()],
        keeps_text=keeps_text,
    )


class _Settings:
    """What stands beside the model list. Each method takes what it reads out; `left` tells of the rest."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._rest = {
            section: dict(said) if section in _SECTIONS and isinstance(said, Mapping) else said
            for section, said in data.items()
            if section != "model_list"
        }

        self.renamed = ROUTE
        """What stands for a model that is called as the route over all."""

    def _name(self, said: Any) -> Any:
        return self.renamed if said == ROUTE else said

    def _take(self, key: str) -> list[tuple[str, Any]]:
        """Take `key` out of every section that has it, as (path, value)."""
        return [
            (f"{section}.{key}", said.pop(key))
            for section, said in self._rest.items()
            if section in _SECTIONS and isinstance(said, dict) and said.get(key) is not None
        ]

    def fallbacks(self, groups: Mapping[str, Any], notes: list[str]) -> dict[str, list[str]]:
        """Return who takes over for which name."""
        out: dict[str, list[str]] = {}
        for at, said in self._take("fallbacks"):
            for one in said if isinstance(said, list) else [said]:
                if not isinstance(one, Mapping):
                    notes.append(f"{at}: left out what is not a name with its list of names")
                    continue
                for called, given in one.items():
                    name = self._name(called)
                    others = [self._name(other) for other in (given if isinstance(given, list) else [given])]
                    known = [o for o in others if isinstance(o, str) and o in groups and o != name]
                    if name not in groups or len(known) < len(others):
                        notes.append(f"{at}: of {name!s:.60}, left out what is no name of a model that was taken over")
                    if name in groups and known:
                        out[name] = list(dict.fromkeys([*out.get(name, ()), *known]))
        for name, others in out.items():
            if len(others) > 1:
                notes.append(f"fallbacks of {name}: {', '.join(others)} take over in the order of their targets' names")
        return out

    def aliases(self, groups: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
        """Return further names -> the name they stand for."""
        out: dict[str, str] = {}
        for at, said in self._take("model_group_alias"):
            if not isinstance(said, Mapping):
                notes.append(f"{at}: left out, it is not a mapping of names")
                continue
            for alias, of in said.items():
                name = str(self._name(of.get("model") if isinstance(of, Mapping) else of))
                if name not in groups or alias in groups or alias == ROUTE:
                    notes.append(
                        f"{at}.{alias}: left out, it stands for no model that was taken over, or is one itself"
                    )
                else:
                    out[str(alias)] = name
        return out

    def seconds(self, notes: list[str]) -> float | None:
        """Return how long a call may take where an entry does not say."""
        seconds: float | None = None
        for at, value in [*self._take("timeout"), *self._take("request_timeout")]:
            number = _positive(value)
            if number is None:
                notes.append(f"{at}: left out, it is not a number of seconds")
            elif seconds is not None:
                notes.append(f"{at}: left out, another one goes before it")
            else:
                seconds = number
                notes.append(f"{at}: it is the timeout_seconds of every target that has no timeout of its own")
        return seconds

    def keeps_text(self) -> bool:
        """Whether prompts and answers may be kept."""
        return all(str(value).lower() == "false" for _, value in self._take("turn_off_message_logging"))

    def left(self) -> list[str]:
        """Return a note on everything that was not taken."""
        out: list[str] = []
        for section, said in self._rest.items():
            if section in _SECTIONS and isinstance(said, Mapping):
                out += [
                    f"{section}.{key}: not taken over; {_instead(SETTINGS, key)}"
                    for key, value in said.items()
                    if value is not None and (key, value) != ("routing_strategy", "simple-shuffle")
                ]
            else:
                out.append(f"{section}: not taken over; {_instead(SETTINGS, section)}")
        return out


def _entry(entry: Any, at: str, notes: list[str]) -> _Entry | None:
    """Understand one entry of the model list; None, with a note, if it cannot be taken over."""

    def leave(why: str) -> _Entry | None:
        notes.append(f"{at}: left out, {why}")
        return None

    if not isinstance(entry, Mapping) or not isinstance(entry.get("litellm_params"), Mapping):
        return leave("it has no litellm_params")
    info = entry.get("model_info")
    given, info = dict(entry["litellm_params"]), dict(info) if isinstance(info, Mapping) else {}
    _look_up(given, at, notes)
    full = str(given.pop("model", ""))
    called = str(entry.get("model_name") or full.rpartition("/")[2])
    if "*" in full or "*" in called:
        name = full if "*" not in full else f"{full.partition('/')[0]}/NAME" if "/" in full else "NAME"
        return leave(
            f"{called if '*' in called else full!r} is a wildcard, and a target is one model; write an entry for each model that is asked for, "
            f"{{model_name: NAME, litellm_params: {{model: {name}, …}}}}, and import again"
        )
    provider, slash, model = full.partition("/")
    if not slash:
        provider, model = ("anthropic" if full.startswith("claude") else "openai"), full
    if (custom := given.pop("custom_llm_provider", None)) is not None:
        provider, model = str(custom), full.removeprefix(f"{custom}/")
    if provider not in PROVIDERS or not model:
        return leave(f"no wire format is known for {full!r}; known: {', '.join(PROVIDERS)}")
    mode = info.pop("mode", None) or "chat"
    if mode not in (*_CHAT, "embedding"):
        return leave(f"models of the mode {mode!r} have no counterpart here")
    if mode == "embedding":
        info["mode"] = mode
    kind, base_url, variable = PROVIDERS[provider]
    if kind == "vertex" and "/" in model:
        return leave(f"of Vertex only the models of Google and Anthropic are known, not {model!r}")
    own_url = given.pop("api_base", None) or given.pop("base_url", None)
    given.pop("base_url", None)
    if own_url is not None:
        base_url = str(own_url)
        if base_url.startswith(_OF_VARIABLE):
            variable = base_url.removeprefix(_OF_VARIABLE)
            return leave(
                f"its api_base stands in the variable {variable}, which is not set here; export it and import again"
            )
        if not base_url.startswith(("http://", "https://")) or "@" in base_url:
            return leave("its api_base is no plain URL (http:// or https://, without a name and a password)")
    if base_url is None and kind not in _NO_ADDRESS:
        return leave(f"{provider} needs an api_base")
    base_url = (base_url or "").rstrip("/")
    if provider in ("ollama", "ollama_chat") and not base_url.endswith("/v1"):
        base_url += "/v1"
    return _Entry(
        at=at,
        called=called,
        kind=kind,
        provider=provider,
        model=re.sub(r"^(?:converse|converse_like|invoke)/", "", model) if kind == "bedrock" else model,
        base_url=base_url,
        own_address=own_url is not None,
        variable=variable,
        given=given,
        info=info,
        others=[str(key) for key in entry if key not in ("model_name", "litellm_params", "model_info")],
    )


def _look_up(given: dict[str, Any], at: str, notes: list[str]) -> None:
    """Put what the variables of an entry say now in their place, but not what may be secret."""
    for key in _OPEN:
        value = given.get(key)
        if isinstance(value, str) and value.startswith(_OF_VARIABLE):
            name = value.removeprefix(_OF_VARIABLE)
            if found := os.environ.get(name, "").strip():
                given[key] = found
                notes.append(f"{at}: its {key} is what the variable {name} says now")


def _names(
    groups: Mapping[str, Sequence[_Entry]], fallbacks: Mapping[str, Sequence[str]], *, taken: set[str]
) -> dict[str, str]:
    """Return the name of each entry's target, by where the entry stands. `taken` are the names that clients use."""
    names: dict[str, str] = {}
    for called, group in groups.items():
        plain = plain_name(called)
        if len(group) == 1 and plain == called and called not in fallbacks:
            names[group[0].at] = called
            continue
        for k, entry in enumerate(group, 1):
            wanted = f"{plain}-{k}" if len(group) > 1 or plain in taken else plain
            names[entry.at] = free_name(wanted, taken)
            taken.add(names[entry.at])
    return names


def _shares(name: str, group: Sequence[_Entry], targets: Sequence[str], notes: list[str]) -> dict[str, float]:
    """Return how often each target of a name is asked: by the first of LiteLLM's own weights that all of them have, else all alike."""
    for key in _SHARES if len(group) > 1 else ():
        said = [_positive(e.given.get(key), zero=True) for e in group]
        if None not in said and any(said):
            for e in group:
                del e.given[key]
            if key != "weight":
                notes.append(
                    f"{name}: its deployments are asked in proportion to their {key}, which limits nothing here"
                )
            return {t: s for t, s in zip(targets, said, strict=True) if s is not None}
    return dict.fromkeys(targets, 1.0)


def _leftovers(entry: _Entry, notes: list[str]) -> None:
    """Tell what an entry says that nothing was made of."""
    for part, rest in (("litellm_params", entry.given), ("model_info", entry.info)):
        notes += [f"{entry.at}.{part}.{key}: not taken over; {_instead(PARAMS, key)}" for key in sorted(rest, key=str)]
    notes += [f"{entry.at}.{key}: not taken over; {_instead(PARAMS, key)}" for key in entry.others]


def _instead(known: Mapping[str, str], key: str) -> str:
    return f"here: {known[key]}" if key in known else "it has no counterpart here"


def _target(entry: _Entry, name: str, seconds: float | None, notes: list[str]) -> Found:
    at, kind, given, info, base_url = entry.at, entry.kind, entry.given, entry.info, entry.base_url
    if name != entry.called:
        notes.append(f"{at}: its target is called {name}")
    variable = entry.variable
    key = given.pop("api_key", None)
    if key is not None and str(key).strip().lower() in _NO_KEY:
        variable = None
    elif key is not None:
        variable = _variable(str(key), name, at, notes)
    elif entry.own_address and variable is not None and kind != "azure_openai":
        notes.append(
            f"{at}: it has its own api_base and no api_key, so none is sent there; add api_key if it wants one"
        )
        variable = None
    options: dict[str, str | float] = dict(_options(kind, given, name, at, notes))
    if kind == "openai_chat" and entry.own_address and entry.provider in _SERVERS:
        options["provider"] = _SERVERS[entry.provider]
    if kind == "azure_openai":
        options["endpoint"], base_url = base_url, ""
        if "token" in options:
            variable = None
    if kind == "bedrock" and len({"access_key", "secret_key"} & set(options)) == 1:
        for half in ("access_key", "secret_key", "session_token"):
            options.pop(half, None)
        notes.append(f"{at}: one of access key and secret key is missing, so AWS's own chain of credentials is asked")
    own_seconds = given.pop("timeout", None)
    if own_seconds is not None and _positive(own_seconds) is None:
        notes.append(f"{at}: its timeout is not a number of seconds; write it as timeout_seconds")
    if (limit := _positive(own_seconds) or seconds) is not None:
        options["timeout_seconds"] = limit
    if kind in _INSISTS and (most := _positive(given.get("max_tokens"))) is not None:
        del given["max_tokens"]
        options["max_tokens"] = int(most)
    profile = _profile(entry, notes)
    spec = {"type": kind, "model": entry.model, "base_url": base_url or None, **options}
    known = profiles.entry_of(spec, profiles.shipped())
    if known is not None and "embeddings" in known.profile.tasks:
        profile.setdefault("tasks", frozenset(["embeddings"]))
    if not {"input_usd_per_mtok", "output_usd_per_mtok"} <= set(profile):
        base = str(info.pop("base_model", "")).rpartition("/")[2]
        if known is not None and profiles.priced(known.profile):
            notes.append(
                f"{at}: it names no full price, so {name} has the list price that the catalogue knows of {known.model}, as of "
                f"{known.as_of or 'an unknown day'}; check it"
            )
        elif not {"input_usd_per_mtok", "output_usd_per_mtok"} & set(profile):
            price = profiles.lookup("openai", base) if base else list_price(entry.model)
            if price is not None and profiles.priced(price):
                profile["input_usd_per_mtok"] = price.input_usd_per_mtok
                profile["output_usd_per_mtok"] = price.output_usd_per_mtok
                of = base or entry.model
                notes.append(
                    f"{at}: it names no price, so {name} has the list price that Fairlead knows of {of}; check it"
                )
    return Found(
        name=name,
        type=kind,
        model=entry.model,
        base_url=base_url or None,
        key=variable,
        options=options,
        profile=Profile(**profile),
        source=f"{at} of the LiteLLM config",
    )


def _profile(entry: _Entry, notes: list[str]) -> dict[str, Any]:
    """Take what an entry says of prices, sizes and abilities out of it, as arguments of a profile."""
    at, given, info = entry.at, entry.given, entry.info
    profile: dict[str, Any] = {}
    for source in (info, given):
        for theirs, ours in _PRICES.items():
            if (usd := _number(source, theirs, at, notes)) is not None:
                profile[ours] = round(usd * 1e6, 9)
        for theirs, ours in _SIZES.items():
            # Among the parameters max_tokens is a wish of every request, not a property of the model.
            if (source is info or theirs != "max_tokens") and (size := _number(source, theirs, at, notes)) is not None:
                profile[ours] = int(size)
    if (most := given.pop("max_parallel_requests", None)) is not None:
        if (number := _positive(most)) is None:
            notes.append(f"{at}: max_parallel_requests is not a number; write it as profile: {{concurrent: N}}")
        else:
            profile["concurrent"] = max(1, int(number))
    if info.pop("mode", None) == "embedding":
        profile["tasks"] = frozenset(["embeddings"])
        if "input_usd_per_mtok" in profile:
            profile.setdefault("output_usd_per_mtok", 0.0)  # vectors are no tokens
    if info.pop("supports_vision", None) is True:
        profile["modalities"] = frozenset(["text", "image"])
    if info.pop("supports_function_calling", None) is False:
        profile["tools"] = False
    return profile


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
        elif text.startswith(_OF_VARIABLE):
            notes.append(f"{at}: {theirs} stands in a variable; write it into the config as {ours}")
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


def _number(source: dict[str, Any], key: str, at: str, notes: list[str]) -> float | None:
    """Take a price or a size out of `source`; None, with a note, if it is none."""
    value = source.pop(key, None)
    number = _positive(value, zero=True)
    if value is not None and number is None:
        notes.append(f"{at}: {key} is not a number from 0 on")
    return number


def _positive(value: Any, *, zero: bool = False) -> float | None:
    """Return a number above 0 (or from 0 on) that a config may hold; None if `value` is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number <= MOST and (number > 0.0 or (zero and number == 0.0)) else None
