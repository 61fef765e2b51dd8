"""Anthropic's Python client: messages whole and streamed, tools, thinking with its signatures, structured output, counting, errors."""

# ruff: noqa: D103 - the name of a case says what it is.
from __future__ import annotations

import base64
import functools
import time
from typing import Any

import anthropic
from cases import KEY, URL, case, check, main, once
from pydantic import BaseModel

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: Any = {
    "name": "get_weather",
    "description": "Tell the weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
BOTH = "What is the weather in Paris and Rome?"
THINK: Any = {"type": "enabled", "budget_tokens": 1024}


class Person(BaseModel):
    """What is to be read off a sentence."""

    name: str
    age: int


@functools.cache
def client(**more: Any) -> anthropic.Anthropic:
    """A client as anybody makes it, but that it does not try again."""
    return anthropic.Anthropic(**{"base_url": URL, "api_key": KEY, "max_retries": 0, "timeout": 20, **more})


def user(content: Any) -> Any:
    """A conversation of one message."""
    return [{"role": "user", "content": content}]


def text(message: Any) -> str:
    """The text of a message."""
    return "".join(b.text for b in message.content if b.type == "text")


@case
def messages(model: str) -> None:
    reply = client().messages.create(model=model, max_tokens=50, messages=user("Hello"), system="Be kind.")
    check(text(reply) == "Hello! How are you today?", reply)
    check(reply.type == "message" and reply.role == "assistant" and reply.stop_reason == "end_turn", reply)
    check(reply.usage.input_tokens > 0 and reply.usage.output_tokens > 0, reply)


@case
def history_in_blocks(model: str) -> None:
    talk: Any = [
        {"role": "user", "content": [{"type": "text", "text": "My name is Ann."}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello Ann."}]},
        {"role": "user", "content": "What is my name?"},
    ]
    system: Any = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    reply = client().messages.create(model=model, max_tokens=50, messages=talk, system=system)
    check(text(reply) == "Your name is Ann.", reply)


@case
async def messages_async(model: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0) as c:
        reply = await c.messages.create(model=model, max_tokens=50, messages=user("Hello"))
        check(text(reply) == "Hello! How are you today?", reply)
        async with c.messages.stream(model=model, max_tokens=50, messages=user("Hello")) as stream:
            found = "".join([t async for t in stream.text_stream])
        check(found == "Hello! How are you today?", found)


@case
def a_token_in_place_of_a_key(model: str) -> None:
    reply = client(api_key=None, auth_token=KEY).messages.create(model=model, max_tokens=50, messages=user("Hello"))
    check(text(reply), reply)


@case
def streamed_events(model: str) -> None:
    events = list(client().messages.create(model=model, max_tokens=50, messages=user("Hello"), stream=True))
    kinds = [e.type for e in events if e.type != "ping"]  # type: ignore[comparison-overlap]
    check(kinds[:2] == ["message_start", "content_block_start"], kinds)
    check(kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"], kinds)
    check(kinds.count("content_block_delta") > 2, kinds)


@case
def stream_helper(model: str) -> None:
    with client().messages.stream(model=model, max_tokens=50, messages=user("Hello")) as stream:
        found = "".join(stream.text_stream)
        final = stream.get_final_message()
    check(found == text(final) == "Hello! How are you today?", final)
    check(final.stop_reason == "end_turn" and final.usage.output_tokens > 1 and final.usage.input_tokens > 0, final)


@case
def tool_and_its_result(model: str) -> None:
    c, talk = client(), user("What is the weather in Paris?")
    reply = c.messages.create(model=model, max_tokens=100, messages=talk, tools=[WEATHER])
    check(reply.stop_reason == "tool_use", reply)
    call: Any = reply.content[-1]
    check((call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris"}), reply)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    talk += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": [result]}]
    then = c.messages.create(model=model, max_tokens=100, messages=talk, tools=[WEATHER])
    check(text(then) == "The tools say: sunny", then)


@case
def parallel_tools_streamed(model: str) -> None:
    c, talk = client(), user(BOTH)
    with c.messages.stream(model=model, max_tokens=100, messages=talk, tools=[WEATHER]) as stream:
        reply = stream.get_final_message()
    calls: Any = [b for b in reply.content if b.type == "tool_use"]
    check([b.input for b in calls] == [{"city": "Paris"}, {"city": "Rome"}], reply)
    results = [
        {"type": "tool_result", "tool_use_id": calls[0].id, "content": [{"type": "text", "text": "sun"}]},
        {"type": "tool_result", "tool_use_id": calls[1].id, "content": "rain", "is_error": True},
    ]
    talk += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": results}]
    then = c.messages.create(model=model, max_tokens=100, messages=talk, tools=[WEATHER])
    check(text(then).startswith("The tools say: sun and ") and text(then).endswith("rain"), then)


@case
def tool_choice(model: str) -> None:
    c = client()
    choices: tuple[tuple[Any, str, int], ...] = (
        ({"type": "any"}, "Hello", 1),
        ({"type": "tool", "name": "get_weather"}, "Hello", 1),
        ({"type": "none"}, "What is the weather in Paris?", 0),
        ({"type": "auto", "disable_parallel_tool_use": True}, BOTH, 1),
    )
    for choice, what, expected in choices:
        reply = c.messages.create(model=model, max_tokens=100, messages=user(what), tools=[WEATHER], tool_choice=choice)
        check(sum(b.type == "tool_use" for b in reply.content) == expected, f"{choice}: {reply}")


@case
def a_picture_as_a_result(model: str) -> None:
    c, talk = client(), user("What is the weather in Paris?")
    reply = c.messages.create(model=model, max_tokens=100, messages=talk, tools=[WEATHER])
    call: Any = reply.content[-1]
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "see"}, picture]}
    talk += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": [result]}]
    then = c.messages.create(model=model, max_tokens=100, messages=talk, tools=[WEATHER])
    check(text(then) == "The tools say: see. I was given 1 picture.", then)


@case
def thinking_and_tools(model: str) -> None:
    c, talk = client(), user("What is the weather in Paris?")
    reply = c.messages.create(model=model, max_tokens=3000, messages=talk, tools=[WEATHER], thinking=THINK)
    kinds = [b.type for b in reply.content]
    check(kinds == (["thinking", "tool_use"] if "anthropic" in model else ["tool_use"]), kinds)
    call: Any = reply.content[-1]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    talk += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": [result]}]
    raw = c.messages.with_raw_response.create(
        model=model, max_tokens=3000, messages=talk, tools=[WEATHER], thinking=THINK
    )
    check(text(raw.parse()) == "The tools say: sunny", raw.text())
    # A budget has no counterpart in OpenAI's format, which must be told; over Anthropic's its own thinking must go back.
    dropped = raw.headers.get("x-fairlead-dropped")
    check(dropped == (None if "anthropic" in model else "thinking"), f"dropped: {dropped}")


@case
def thinking_streamed(model: str) -> None:
    c = client()
    more: Any = {"thinking": THINK} if "anthropic" in model else {"extra_body": {"output_config": {"effort": "low"}}}
    with c.messages.stream(model=model, max_tokens=3000, messages=user("Why?"), **more) as stream:
        kinds = {event.type for event in stream}
        reply = stream.get_final_message()
    check([b.type for b in reply.content] == ["thinking", "text"], reply)
    check("thinking" in kinds, kinds)
    if "anthropic" in model:
        check(getattr(reply.content[0], "signature", ""), reply)


@case
def thinking_of_another_target_goes_on(model: str) -> None:
    other = "over-openai" if "anthropic" in model else "over-anthropic"
    c, talk = client(), user("Why?")
    effort = {"output_config": {"effort": "low"}}
    reply = c.messages.create(model=other, max_tokens=3000, messages=talk, thinking=THINK, extra_body=effort)
    check(reply.content[0].type == "thinking", reply)
    talk += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": "Hello"}]
    then = c.messages.create(model=model, max_tokens=3000, messages=talk, thinking=THINK)
    check(text(then) == "Hello! How are you today?", then)


@case
def structured(model: str) -> None:
    schema: Any = {**Person.model_json_schema(), "additionalProperties": False}
    reply = client().messages.create(
        model=model,
        max_tokens=100,
        messages=user("Ann is 41 years old."),
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    check(Person.model_validate_json(text(reply)) == Person(name="Ann", age=41), reply)


@case
def structured_by_a_class(model: str) -> None:
    reply = client().messages.parse(
        model=model, max_tokens=100, messages=user("Ann is 41 years old."), output_format=Person
    )
    check(reply.parsed_output == Person(name="Ann", age=41), reply)


@case
def stop_and_limit(model: str) -> None:
    c = client()
    reply = c.messages.create(model=model, max_tokens=50, messages=user("Hello"), stop_sequences=["you"])
    check(text(reply).strip() == "Hello! How are", reply)
    if "anthropic" in model:
        check((reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "you"), reply)
        with c.messages.stream(model=model, max_tokens=50, messages=user("Hello"), stop_sequences=["you"]) as stream:
            reply = stream.get_final_message()
        check((reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "you"), reply)
    reply = c.messages.create(model=model, max_tokens=2, messages=user("Hello"))
    check(reply.stop_reason == "max_tokens", reply)


@case
def picture_and_documents(model: str) -> None:
    pdf = base64.b64encode(b"%PDF-1.4 tiny").decode()
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": pdf}},
    ]
    reply = client().messages.create(model=model, max_tokens=50, messages=user(content))
    check(text(reply) == "I was given 1 picture, 1 file.", reply)


@case
def cache_marks(model: str) -> None:
    block = {"type": "text", "text": f"Hello, {time.time_ns()}", "cache_control": {"type": "ephemeral"}}
    c = client()
    first, then = (c.messages.create(model=model, max_tokens=50, messages=user([block])).usage for _ in range(2))
    check(then.cache_read_input_tokens, then)
    if "anthropic" in model:
        check(first.cache_creation_input_tokens, first)
        total = [
            u.input_tokens + (u.cache_read_input_tokens or 0) + (u.cache_creation_input_tokens or 0)
            for u in (first, then)
        ]
        check(total[0] == total[1], (first, then))


@case
def other_fields(model: str) -> None:
    raw = client().messages.with_raw_response.create(
        model=model,
        max_tokens=50,
        messages=user("Hello"),
        metadata={"user_id": "ann"},
        extra_body={"temperature": 0.5, "top_k": 5},  # version 2 has no arguments for them
    )
    check(text(raw.parse()), raw.text())


@case
def count_tokens(model: str) -> None:
    c = client()
    short = c.messages.count_tokens(model=model, messages=user("Hello")).input_tokens
    long = c.messages.count_tokens(model=model, messages=user("Hello " * 50), tools=[WEATHER]).input_tokens
    check(0 < short < long, (short, long))


@once
def of_a_real_model() -> None:
    reply = client().messages.create(model="lab", max_tokens=50, messages=user("What is 17 + 25?"))
    check(text(reply) and reply.usage.output_tokens > 0, reply)


@once
def a_route() -> None:
    raw = client().messages.with_raw_response.create(model="auto", max_tokens=50, messages=user("Hello"))
    check(raw.headers["x-fairlead-target"] == "over-openai", raw.headers)


@once
def models() -> None:
    c = client()
    names = [m.id for m in c.models.list(limit=100)]
    check({"auto", "over-openai", "over-anthropic"} <= set(names), names)
    check(c.models.retrieve("over-openai").id == "over-openai", "by name")
    try:
        c.models.retrieve("none")
    except anthropic.NotFoundError:
        return
    raise AssertionError("no NotFoundError")


def _raises(kind: type[anthropic.APIStatusError], key: str = KEY, **body: Any) -> None:
    body = {"model": "over-openai", "max_tokens": 50, "messages": user("Hello"), **body}
    try:
        client(api_key=key).messages.create(**body)
    except kind as e:
        check(type(e) is kind, f"{type(e).__name__} in place of {kind.__name__}")
        shape: Any = e.body
        check(shape["type"] == "error" and shape["error"]["type"] and shape["error"]["message"], shape)
        return
    raise AssertionError(f"no {kind.__name__}")


@once
def error_of_a_wrong_key() -> None:
    _raises(anthropic.AuthenticationError, key="wrong")


@once
def error_of_a_key_that_may_not() -> None:
    # It is not told that there is such a model.
    _raises(anthropic.NotFoundError, key="fl-narrow-key-of-the-clients")


@once
def error_of_an_unknown_model() -> None:
    _raises(anthropic.NotFoundError, model="claude-none")


@once
def error_of_a_wrong_body() -> None:
    _raises(anthropic.BadRequestError, messages=[])
    _raises(anthropic.BadRequestError, messages=[{"role": "nobody", "content": "Hello"}])


@once
def error_of_a_long_prompt() -> None:
    _raises(anthropic.BadRequestError, model="long-openai")
    _raises(anthropic.BadRequestError, model="long-anthropic")


@once
def error_of_a_limit() -> None:
    key = "fl-limited-too-key-of-the-clients"
    client(api_key=key).messages.create(model="over-openai", max_tokens=50, messages=user("Hello"))
    _raises(anthropic.RateLimitError, key=key)


@once
def error_of_a_target_that_is_down() -> None:
    _raises(anthropic.InternalServerError, model="down-openai")
    _raises(anthropic.InternalServerError, model="down-anthropic")


@once
def error_of_a_stream_that_breaks() -> None:
    for model in ("cut-openai", "cut-anthropic"):
        found = ""
        try:
            with client().messages.stream(model=model, max_tokens=50, messages=user("Hello")) as stream:
                for piece in stream.text_stream:
                    found += piece
        except anthropic.APIError:
            check(found, "nothing came before the break")
        else:
            raise AssertionError(f"{model}: a stream that breaks ended like a whole one: {found!r}")


@once
def retries() -> None:
    asked = f"Hello, for the first time at {time.time_ns()}"
    for model in ("flaky-openai", "flaky-anthropic"):
        _raises(anthropic.RateLimitError, model=model, messages=user(asked + model))
        reply = client(max_retries=2).messages.create(model=model, max_tokens=50, messages=user(asked + model + "!"))
        check(text(reply), reply)


if __name__ == "__main__":
    main()
