"""Providers and servers that speak OpenAI's chat format, and where each differs: data, read by `fairlead.targets.openai_chat`.

What differs: which of the pivot's extension fields an upstream takes, how it calls the limit on output, whether it may be asked for token counts in
a stream, and where it states a cost. What a reply holds is read alike whoever sent it (`reasoning` or `reasoning_content`, DeepSeek's
``prompt_cache_hit_tokens``, Groq's ``x_groq``, xAI's reasoning beside the completion): its fields say which it is. As of November 2026, by the
providers' own reference pages. An unknown server is taken for one of those that run open models: they know `top_k` and skip what they do not know.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from fairlead.errors import TargetError
from fairlead.targets import signed
from fairlead.types import Failure

Name = Literal[
    "openai",
    "azure",
    "openrouter",
    "groq",
    "together",
    "mistral",
    "deepseek",
    "xai",
    "fireworks",
    "ollama",
    "vllm",
    "sglang",
    "llamacpp",
    "lmstudio",
]
Field = Literal["cache_control", "is_error", "file_url", "reasoning_content", "thinking", "thinking_blocks", "top_k"]


class Provider(Struct, frozen=True, kw_only=True):
    """How one upstream differs from OpenAI's format with the pivot's extension fields."""

    base_url: str | None = None
    key: str | None = None
    """The environment variable in which its key usually stands. Told in the docs, never read by itself."""
    takes: frozenset[Field] = frozenset()
    """Extension fields that are sent to it; the others are taken out and told."""
    limit: Literal["max_tokens", "max_completion_tokens"] | None = None
    """The one name of the limit on output that it knows; None: both."""
    stream_usage: bool = True
    """Whether it may be asked for token counts in a stream. Mistral counts unasked, and answers 422 to the question."""
    file_urls: Literal["file_data"] | None = None
    """The field of a file where it takes an address."""
    runs: frozenset[str] = frozenset()
    """Tools of OpenAI's Responses that it runs in chat, too."""
    cost: Literal["cost", "cost_in_usd_ticks"] | None = None
    """The field of its usage that holds what it charged: USD, or xAI's ten-billionths of one."""


_OPEN: Final[frozenset[Field]] = frozenset({"top_k", "reasoning_content"})
_TOP_K: Final[frozenset[Field]] = frozenset({"top_k"})

UNKNOWN: Final = Provider(takes=_OPEN)

PROVIDERS: Final[dict[str, Provider]] = {
    "openai": Provider(base_url="https://api.openai.com/v1", key="OPENAI_API_KEY", limit="max_completion_tokens"),
    "azure": Provider(key="AZURE_OPENAI_API_KEY", limit="max_completion_tokens"),
    "openrouter": Provider(
        base_url="https://openrouter.ai/api/v1",
        key="OPENROUTER_API_KEY",
        takes=frozenset({"top_k", "cache_control", "reasoning_content", "file_url"}),
        file_urls="file_data",
        cost="cost",
    ),
    "groq": Provider(
        base_url="https://api.groq.com/openai/v1", key="GROQ_API_KEY", runs=frozenset({"code_interpreter"})
    ),
    "together": Provider(
        base_url="https://api.together.xyz/v1", key="TOGETHER_API_KEY", takes=_TOP_K, limit="max_tokens"
    ),
    "mistral": Provider(
        base_url="https://api.mistral.ai/v1", key="MISTRAL_API_KEY", limit="max_tokens", stream_usage=False
    ),
    "deepseek": Provider(
        base_url="https://api.deepseek.com/v1",
        key="DEEPSEEK_API_KEY",
        takes=frozenset({"thinking", "reasoning_content"}),
        limit="max_tokens",
    ),
    "xai": Provider(base_url="https://api.x.ai/v1", key="XAI_API_KEY", cost="cost_in_usd_ticks"),
    "fireworks": Provider(
        base_url="https://api.fireworks.ai/inference/v1", key="FIREWORKS_API_KEY", takes=_OPEN, limit="max_tokens"
    ),
    "ollama": Provider(base_url="http://127.0.0.1:11434/v1", limit="max_tokens"),
    "vllm": Provider(base_url="http://127.0.0.1:8000/v1", takes=_OPEN),
    "sglang": Provider(base_url="http://127.0.0.1:30000/v1", takes=_OPEN),
    "llamacpp": Provider(base_url="http://127.0.0.1:8080/v1", takes=_OPEN, limit="max_tokens"),
    "lmstudio": Provider(base_url="http://127.0.0.1:1234/v1", takes=_TOP_K, limit="max_tokens"),
}
_HOSTS: Final = {
    host: name
    for name, p in PROVIDERS.items()
    if p.base_url is not None and (host := urlsplit(p.base_url).hostname) not in (None, "127.0.0.1")
}


def known(name: str | None, base_url: str) -> tuple[str, Provider]:
    """Return (name, provider): the one called `name`, else the one whose host `base_url` names, else ("", `UNKNOWN`)."""
    name = name or _HOSTS.get(urlsplit(base_url).hostname or "", "")
    return name, PROVIDERS.get(name, UNKNOWN)


# ---------------------------------------------------------------------------------------------- what an upstream takes

_REQUEST: Final[frozenset[str]] = frozenset({"thinking", "top_k", "cache_control"})
"""Extension fields that stand at the top of a request."""
_INSIDE: Final[tuple[Field, ...]] = ("cache_control", "thinking_blocks", "reasoning_content", "is_error", "file_url")
"""Those that stand in messages; `cache_control` also in tools."""
_SERVED: Final = re.compile(rb'"type"\s*:\s*"[a-z_]+_20\d{6}"')
_DATED: Final = re.compile(r"[a-z_]+_20\d{6}")
"""The type of a tool that Anthropic knows or runs, such as ``web_search_20250305``: OpenAI's format has none, and its servers refuse the request for it."""
_KINDS: Final = r"web_search(?:_preview)?(?:_20\d\d_\d\d_\d\d)?|code_interpreter"
_KIND: Final = re.compile(_KINDS)
_HOSTED: Final = re.compile(rb'"type"\s*:\s*"(?:' + _KINDS.encode() + rb')"')
"""The type of a tool that OpenAI runs for its Responses."""
# One pass over the bytes; a search for each name takes five times as long.
_MARK: Final = re.compile(b'"(' + "|".join((*_INSIDE, "tool")).encode() + b')"')
_ELSEWHERE: Final = "(attached below)"
"""What a tool's result says that was nothing but pictures."""


def fit(fields: dict[str, Raw], provider: Provider, api: str = "chat") -> tuple[str, ...]:
    """Take out of a request, in place, the extension fields that `provider` does not know; return what was left out.

    Of a request that came by OpenAI's Responses (`api`) that is also what OpenAI runs there by itself: its chat has no such tools. One that came
    by chat is in its target's own format, and what it says of tools stays.

    Pictures in a tool's result, for which OpenAI's format has no place, go into a user's message after the results.

    Messages and tools are decoded only where their bytes hold one of the names: about 1 µs for a request without any, and 6 for 20 kB.

    Raises:
        TargetError: ``bad_request``, if a message would be empty without a file that it names by address.
    """
    dropped: list[str] = []
    limit = provider.limit
    if limit is not None:
        other = "max_tokens" if limit == "max_completion_tokens" else "max_completion_tokens"
        if other in fields:
            said = fields.pop(other)
            fields.setdefault(limit, said)
    takes = provider.takes
    if not _REQUEST.isdisjoint(fields):
        for name in ("thinking", "top_k", "cache_control"):
            if name in fields and name not in takes and bytes(fields.pop(name)).strip() != b"null":
                dropped.append(name)
    raw = fields.get("messages")
    if raw is not None:
        data = bytes(raw)
        if _MARK.search(data) is not None:
            there = {name.decode() for name in _MARK.findall(data)}
            found = frozenset(f for f in _INSIDE if f in there and (f not in takes or f == "file_url"))
            pictures = "tool" in there and (b'"image_url"' in data or b'"file"' in data)
            if found or pictures:
                fields["messages"] = _messages(data, found, provider, dropped)
    raw = fields.get("tools")
    if raw is not None:
        data = bytes(raw)
        served = _SERVED.search(data) is not None
        hosted = api == "responses" and _HOSTED.search(data) is not None
        if served or hosted or ("cache_control" not in takes and b'"cache_control"' in data):
            _tools(fields, provider, dropped, hosted=hosted)
    return tuple(dict.fromkeys(dropped))


def _tools(fields: dict[str, Raw], provider: Provider, dropped: list[str], *, hosted: bool) -> None:
    """Leave out of tools what is not taken, tools that Anthropic itself would run, and, where they are `hosted`, those that OpenAI would; a choice
    among none, or of one that is gone, goes too."""
    takes = provider.takes
    tools = msgspec.json.decode(fields["tools"])
    if not isinstance(tools, list):
        return
    kept, gone = [], []
    for i, tool in enumerate(tools):
        if isinstance(tool, dict):
            if isinstance(kind := tool.get("type"), str) and _DATED.fullmatch(kind):
                dropped.append(f"tools[{i}]")
                gone.append(tool.get("name"))
                continue
            # One with a member of its own name is of a chat format that has it, as some providers' have.
            if hosted and isinstance(kind, str) and _KIND.fullmatch(kind) and kind not in (*provider.runs, *tool):
                dropped.append(f"tools ({kind})")
                gone.append(None)
                continue
            if "cache_control" not in takes and tool.pop("cache_control", None) is not None:
                dropped.append(f"tools[{i}].cache_control")
        kept.append(tool)
    fields["tools"] = Raw(msgspec.json.encode(kept))
    if not gone:
        return
    if not kept:
        del fields["tools"]
        fields.pop("parallel_tool_calls", None)
    if (raw := fields.get("tool_choice")) is not None:
        choice = msgspec.json.decode(raw)
        named = choice.get("function") if isinstance(choice, dict) else None
        if not kept or (isinstance(named, dict) and named.get("name") in gone):
            del fields["tool_choice"]
            dropped.append("tool_choice")


def _messages(data: bytes, found: frozenset[Field], provider: Provider, dropped: list[str]) -> Raw:
    try:
        messages = msgspec.json.decode(data, type=list[dict[str, Any]])
    except msgspec.ValidationError as e:
        raise TargetError(Failure(kind="bad_request", message=f"messages must be a list of objects: {e}")) from e
    for i, message in enumerate(messages):
        for name in ("cache_control", "is_error", "reasoning_content"):
            if name in found and message.pop(name, None):
                dropped.append(f"messages[{i}].{name}" if name != "reasoning_content" else name)
        if "thinking_blocks" in found and (blocks := message.pop("thinking_blocks", None)):
            dropped += _thought(blocks)
        content = message.get("content")
        if isinstance(content, list) and ("cache_control" in found or "file_url" in found):
            message["content"] = kept = [p for p in content if _part(p, i, found, provider, dropped)]
            if content and not kept:
                text = f"messages[{i}] holds nothing but a file by its address, which this target cannot fetch"
                raise TargetError(Failure(kind="bad_request", message=text))
    return Raw(msgspec.json.encode(_moved(messages)))


def _moved(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages whose tools' results hold text alone; what else was in them follows as the user's."""
    out: list[dict[str, Any]] = []
    parts: list[Any] = []
    for message in messages:
        content = message.get("content")
        if message.get("role") != "tool":
            if parts:
                out.append({"role": "user", "content": parts})
                parts = []
        elif isinstance(content, list):
            texts = [p for p in content if not isinstance(p, dict) or p.get("type", "text") == "text"]
            if len(texts) < len(content):
                parts += [p for p in content if p not in texts]
                message["content"] = texts or _ELSEWHERE
        out.append(message)
    if parts:
        out.append({"role": "user", "content": parts})
    return out


def _thought(blocks: Any) -> list[str]:
    """Say whose thinking was left out."""
    try:
        return signed.take(blocks, "-", unmarked=False).left_out
    except (KeyError, TypeError, AttributeError):
        return ["thinking_blocks"]


def _part(part: Any, i: int, found: frozenset[Field], provider: Provider, dropped: list[str]) -> bool:
    """Fit one content part in place; False if it cannot be sent."""
    if not isinstance(part, dict):
        return True
    if "cache_control" in found and part.pop("cache_control", None) is not None:
        dropped.append(f"messages[{i}].cache_control")
    file = part.get("file")
    if "file_url" in found and isinstance(file, dict) and "file_url" in file:
        if provider.file_urls is None:
            dropped.append(f"messages[{i}].file_url")
            return False
        file[provider.file_urls] = file.pop("file_url")
    return True
