"""What Anthropic's API takes: the SDK's own types, and the rules behind its 400s that types do not show. For tests of drivers."""

import itertools
import re
from functools import cache
from typing import Any

from anthropic.types import ContentBlockParam, ToolParam
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from anthropic.types.text_block_param import TextBlockParam
from anthropic.types.tool_result_block_param import Content
from anthropic.types.tool_union_param import ToolUnionParam
from pydantic import ConfigDict, TypeAdapter

# Gone from the types with the API version of October 2026, taken in the one before.
SAMPLING = {"temperature": (0, 1), "top_p": (0, 1), "top_k": (0, 500)}


@cache
def _types(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(list[kind], config=ConfigDict(extra="forbid"))


def _drain(value: Any) -> None:
    """Read the whole of it: pydantic checks what is `Iterable` only when it is read."""
    if isinstance(value, dict):
        for v in value.values():
            _drain(v)
    elif not isinstance(value, str | bytes) and hasattr(value, "__iter__"):
        for v in value:
            _drain(v)


def typed(kind: Any, values: list[Any]) -> None:
    _drain(_types(kind).validate_python(values))


def check_types(request: dict[str, Any]) -> None:
    """Raise pydantic's error if the SDK's types do not know the request, down to its last key."""
    body = {k: v for k, v in request.items() if k not in (*SAMPLING, "stream")}
    typed(MessageCreateParamsNonStreaming, [{**body, "messages": []}])
    for message in request["messages"]:
        assert set(message) == {"role", "content"}
        typed(ContentBlockParam, message["content"])
        for block in message["content"]:
            if block["type"] == "tool_result":
                typed(Content, block.get("content", []))
    typed(TextBlockParam, request.get("system", []))
    typed(ToolUnionParam, request.get("tools", []))
    typed(ToolParam, [t for t in request.get("tools", []) if "input_schema" in t])


def check(request: dict[str, Any], rules: Any) -> None:
    """Assert what the API checks. `rules` are the model's `Traits`."""
    check_types(request)
    turns = request["messages"]
    assert turns, "at least one message is required"
    for before, after in itertools.pairwise(turns):
        assert before["role"] != after["role"]
    texts = [*request.get("system", [])]
    marked: list[dict[str, Any]] = [*request.get("system", []), *request.get("tools", [])]
    seen: set[str] = set()
    for i, turn in enumerate(turns):
        content = turn["content"]
        assert content, "a turn must have content"
        kinds = [b["type"] for b in content]
        marked += content
        texts += [b for b in content if b["type"] == "text"]
        if turn["role"] == "assistant":
            assert set(kinds) <= {"text", "thinking", "redacted_thinking", "tool_use"}
            ids = [b["id"] for b in content if b["type"] == "tool_use"]
            assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", id) for id in ids)
            assert not seen & set(ids), "ids of tool calls must be unique"
            assert len(set(ids)) == len(ids)
            seen |= set(ids)
            after = turns[i + 1]["content"] if i + 1 < len(turns) else []
            assert [b["tool_use_id"] for b in after if b["type"] == "tool_result"] == [] or ids
            assert sorted(b["tool_use_id"] for b in after if b["type"] == "tool_result") == sorted(ids)
            for block in content:
                assert not str(block.get("signature", block.get("data", ""))).startswith("fl1:")
                if block["type"] in ("thinking", "redacted_thinking"):
                    assert "cache_control" not in block
        else:
            results = kinds.count("tool_result")
            assert kinds[:results] == ["tool_result"] * results, "results stand first"
            assert not results or i > 0
            for block in content[:results]:
                inner = block.get("content", [])
                marked += inner
                texts += [b for b in inner if b["type"] == "text"]
    assert all(b["text"].strip() for b in texts), "text must not be blank"
    assert sum("cache_control" in b for b in marked) + ("cache_control" in request) <= 4
    assert all(s.strip() for s in request.get("stop_sequences", []))
    _check_thinking(request, rules, turns)
    for key, (low, high) in SAMPLING.items():
        assert low <= request.get(key, low) <= high


def _check_thinking(request: dict[str, Any], rules: Any, turns: list[dict[str, Any]]) -> None:
    thinking = request.get("thinking")
    kind = thinking["type"] if thinking else "adaptive" if rules.thinks else "disabled"
    assert thinking is None or kind in rules.thinking
    effort = request.get("output_config", {}).get("effort")
    assert effort is None or effort in rules.efforts
    on = kind in ("enabled", "adaptive")
    if kind == "enabled":
        assert 1024 <= thinking["budget_tokens"] < request["max_tokens"]
        loop = [t for t in turns if t["role"] == "assistant"]
        if turns[-1]["content"][0]["type"] == "tool_result" and len(loop) == 1:
            assert loop[0]["content"][0]["type"] in ("thinking", "redacted_thinking"), "Expected `thinking`"
    if not on and rules.thinks:
        assert effort not in ("xhigh", "max")
    forced = request.get("tool_choice", {}).get("type") in ("any", "tool")
    always = rules.thinks and not {"disabled", "between_tools"} & set(rules.thinking)
    assert not forced or (rules.forced and (not on or (always and thinking is None)))
    if turns[-1]["role"] == "assistant":
        assert rules.prefill
        assert not on
        last = turns[-1]["content"][-1]
        assert last["type"] == "text"
        assert last["text"] == last["text"].rstrip()
    assert rules.thinking or not any("thinking" in b["type"] for t in turns for b in t["content"])
    given = [k for k in SAMPLING if k in request]
    assert rules.sampling != "none" or not given
    assert rules.sampling != "one" or not {"temperature", "top_p"} <= set(given)
    if on:
        assert request.get("temperature", 1) == 1
        assert "top_k" not in given
        assert request.get("top_p", 1) >= 0.95
    if any(b["type"] in ("tool_use", "tool_result") for t in turns for b in t["content"]):
        assert request.get("tools"), "calls need tools"
    if "format" in request.get("output_config", {}):
        assert rules.schemas
        _check_schema(request["output_config"]["format"]["schema"])
    for tool in request.get("tools", []):
        if tool.get("strict"):
            assert rules.schemas
            _check_schema(tool["input_schema"])


def _check_schema(schema: Any) -> None:
    if isinstance(schema, dict) and schema.get("type") == "object":
        assert schema["additionalProperties"] is False
        for name, inner in schema["properties"].items():
            assert not {"minimum", "maximum", "minLength", "maxLength"} & set(inner), name
            _check_schema(inner)
