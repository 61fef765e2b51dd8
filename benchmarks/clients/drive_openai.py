"""OpenAI's Python client: chat, responses, embeddings, files, batches, models, errors."""

# ruff: noqa: D103 - the name of a case says what it is.
from __future__ import annotations

import base64
import functools
import io
import json
import time
from typing import Any

import openai
from cases import KEY, URL, case, check, main, once
from pydantic import BaseModel

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
FLAT: Any = {"type": "function", "strict": True, **WEATHER["function"]}
BOTH = "What is the weather in Paris and Rome?"


class Person(BaseModel):
    """What is to be read off a sentence."""

    name: str
    age: int


@functools.cache
def client(**more: Any) -> openai.OpenAI:
    """A client as anybody makes it, but that it does not try again."""
    return openai.OpenAI(**{"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0, "timeout": 20, **more})


def user(text: Any) -> Any:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


@case
def chat(model: str) -> None:
    reply = client().chat.completions.create(model=model, messages=user("Hello"), max_tokens=50)
    check(reply.choices[0].message.content == "Hello! How are you today?", reply)
    check(reply.choices[0].finish_reason == "stop", reply)
    check(reply.usage and reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens, reply)


@case
def chat_system_and_history(model: str) -> None:
    messages: Any = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "My name is Ann."},
        {"role": "assistant", "content": "Hello Ann."},
        {"role": "user", "content": "What is my name?"},
    ]
    check(
        client().chat.completions.create(model=model, messages=messages).choices[0].message.content
        == "Your name is Ann."
    )


@case
async def chat_async(model: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0) as c:
        reply = await c.chat.completions.create(model=model, messages=user("Hello"))
        check(reply.choices[0].message.content, reply)
        text = ""
        async for chunk in await c.chat.completions.create(model=model, messages=user("Hello"), stream=True):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        check(text == reply.choices[0].message.content, text)


@case
def chat_streamed(model: str) -> None:
    chunks = list(
        client().chat.completions.create(
            model=model, messages=user("Hello"), stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check(text == "Hello! How are you today?", text)
    check(len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 2, "the text came in one piece")
    check(chunks[-1].usage and chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices, chunks[-1])
    check([c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop", chunks)
    check(len({c.id for c in chunks}) == 1, "the id changes within a stream")


@case
def chat_streamed_without_usage(model: str) -> None:
    chunks = list(client().chat.completions.create(model=model, messages=user("Hello"), stream=True))
    check(all(c.usage is None for c in chunks) and all(c.choices for c in chunks), "usage that nobody asked for")


@case
def chat_stream_helper(model: str) -> None:
    with client().chat.completions.stream(model=model, messages=user("Hello")) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    check({"chunk", "content.delta", "content.done"} <= kinds, kinds)
    check(final.choices[0].message.content == "Hello! How are you today?", final)


@case
def chat_tool_and_its_result(model: str) -> None:
    c, messages = client(), user("What is the weather in Paris?")
    reply = c.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    message: Any = reply.choices[0].message
    check(reply.choices[0].finish_reason == "tool_calls" and message.tool_calls, reply)
    check(json.loads(message.tool_calls[0].function.arguments) == {"city": "Paris"}, message)
    messages += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}]
    then = c.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    check(then.choices[0].message.content == "The tools say: sunny", then)


@case
def chat_parallel_tools_streamed(model: str) -> None:
    c, messages = client(), user(BOTH)
    with c.chat.completions.stream(model=model, messages=messages, tools=[WEATHER]) as stream:
        message = stream.get_final_completion().choices[0].message
    calls = message.tool_calls or []
    check([json.loads(t.function.arguments)["city"] for t in calls] == ["Paris", "Rome"], message)
    called = [
        {"id": t.id, "type": "function", "function": t.function.model_dump(include={"name", "arguments"})}
        for t in calls
    ]
    messages += [{"role": "assistant", "content": None, "tool_calls": called}]
    messages += [
        {"role": "tool", "tool_call_id": t.id, "content": w} for t, w in zip(calls, ("sun", "rain"), strict=True)
    ]
    then = c.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    check(then.choices[0].message.content == "The tools say: sun and rain", then)


@case
def chat_parallel_tools_forbidden(model: str) -> None:
    reply = client().chat.completions.create(
        model=model, messages=user(BOTH), tools=[WEATHER], parallel_tool_calls=False
    )
    check(len(reply.choices[0].message.tool_calls or ()) == 1, reply)


@case
def chat_tool_choice(model: str) -> None:
    c = client()
    choice: Any
    for choice, called in (
        ("required", True),
        ("none", False),
        ({"type": "function", "function": {"name": "get_weather"}}, True),
    ):
        what = "Hello" if called else "What is the weather in Paris?"
        reply = c.chat.completions.create(model=model, messages=user(what), tools=[WEATHER], tool_choice=choice)
        check(bool(reply.choices[0].message.tool_calls) is called, f"{choice}: {reply}")


@case
def chat_structured(model: str) -> None:
    reply = client().chat.completions.parse(model=model, messages=user("Ann is 41 years old."), response_format=Person)
    check(reply.choices[0].message.parsed == Person(name="Ann", age=41), reply)


@case
def chat_structured_streamed(model: str) -> None:
    c = client()
    with c.chat.completions.stream(
        model=model, messages=user("Ann is 41 years old."), response_format=Person
    ) as stream:
        final = stream.get_final_completion()
    check(final.choices[0].message.parsed == Person(name="Ann", age=41), final)


@case
def chat_json_object(model: str) -> None:
    reply = client().chat.completions.with_raw_response.create(
        model=model, messages=user("Answer in JSON with the key 'city'."), response_format={"type": "json_object"}
    )
    check("city" in json.loads(reply.parse().choices[0].message.content or ""), reply.text)
    told = "response_format" in reply.headers.get("x-fairlead-dropped", "")
    check(told == ("anthropic" in model), "Anthropic's format has no such mode, which must be told")


@case
def chat_stop_and_limit(model: str) -> None:
    c = client()
    reply = c.chat.completions.create(model=model, messages=user("Hello"), stop=["you"])
    check(reply.choices[0].message.content == "Hello! How are " and reply.choices[0].finish_reason == "stop", reply)
    reply = c.chat.completions.create(model=model, messages=user("Hello"), max_completion_tokens=2)
    check(reply.choices[0].finish_reason == "length", reply)


@case
def chat_logprobs_and_n(model: str) -> None:
    raw = client().chat.completions.with_raw_response.create(
        model=model, messages=user("Hello"), logprobs=True, top_logprobs=2, n=2, seed=7
    )
    reply, dropped = raw.parse(), raw.headers.get("x-fairlead-dropped", "")
    if "anthropic" in model:
        check({"logprobs", "n", "seed"} <= {d.strip() for d in dropped.split(",")}, f"dropped: {dropped!r}")
        return
    check(not dropped, dropped)
    check(len(reply.choices) == 2, reply)
    probabilities = reply.choices[1].logprobs
    check(probabilities and probabilities.content and len(probabilities.content[0].top_logprobs) == 2, reply)


@case
def chat_picture_and_file(model: str) -> None:
    pdf = base64.b64encode(b"%PDF-1.4 tiny").decode()
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{pdf}"}},
    ]
    reply = client().chat.completions.create(model=model, messages=user(content))
    check(reply.choices[0].message.content == "I was given 1 picture, 1 file.", reply)


@case
def chat_thinking(model: str) -> None:
    reply = client().chat.completions.create(model=model, messages=user("Why?"), reasoning_effort="low")
    thinking = (reply.choices[0].message.model_extra or {}).get("reasoning_content")
    check(thinking, reply)


@case
def chat_cached_tokens(model: str) -> None:
    c = client()
    text = f"Hello again, {time.time_ns()}"
    marked = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}] if "anthropic" in model else text
    usages = [c.chat.completions.create(model=model, messages=user(marked)).usage for _ in range(2)]
    details = [u and u.prompt_tokens_details for u in usages]
    check(details[1] and details[1].cached_tokens, usages)
    check(usages[0] and usages[1] and usages[0].prompt_tokens == usages[1].prompt_tokens, usages)


@case
def responses(model: str) -> None:
    reply = client().responses.create(model=model, input="Hello", instructions="Be kind.")
    check(reply.output_text == "Hello! How are you today?" and reply.status == "completed", reply)
    check(reply.usage and reply.usage.output_tokens > 0, reply)


@case
def responses_streamed(model: str) -> None:
    with client().responses.stream(model=model, input="Hello") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    check(final.output_text == "Hello! How are you today?", final)
    check(kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds)
    check(kinds.count("response.output_text.delta") > 2, kinds)


@case
def responses_go_on(model: str) -> None:
    c = client()
    first = c.responses.create(model=model, input="My name is Ann.")
    then = c.responses.create(model=model, input="What is my name?", previous_response_id=first.id)
    check(then.output_text == "Your name is Ann.", then)
    check(c.responses.retrieve(first.id).output_text == first.output_text, "not kept as it was")
    check(len(c.responses.input_items.list(then.id).data) == 1, "input items")
    c.responses.delete(then.id)
    try:
        c.responses.retrieve(then.id)
    except openai.NotFoundError:
        return
    raise AssertionError("a deleted response is still there")


@case
def responses_tools(model: str) -> None:
    c = client()
    first = c.responses.create(model=model, input=BOTH, tools=[FLAT])
    calls = [item for item in first.output if item.type == "function_call"]
    check([json.loads(call.arguments)["city"] for call in calls] == ["Paris", "Rome"], first)
    outputs: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in calls]
    then = c.responses.create(model=model, input=outputs, tools=[FLAT], previous_response_id=first.id)
    check(then.output_text == "The tools say: sun and sun", then)


@case
def responses_tools_streamed(model: str) -> None:
    with client().responses.stream(model=model, input="What is the weather in Paris?", tools=[FLAT]) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    check("response.function_call_arguments.done" in kinds, kinds)
    check(final.output[-1].type == "function_call", final)


@case
def responses_structured(model: str) -> None:
    reply = client().responses.parse(model=model, input="Ann is 41 years old.", text_format=Person)
    check(reply.output_parsed == Person(name="Ann", age=41), reply)


@case
def responses_thinking_and_tools(model: str) -> None:
    c = client()
    asked: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    effort: Any = {"effort": "medium", "summary": "auto"}
    first = c.responses.create(
        model=model, input=asked, tools=[FLAT], reasoning=effort, store=False, include=["reasoning.encrypted_content"]
    )
    kinds = [item.type for item in first.output]
    check(kinds == ["reasoning", "function_call"], kinds)
    call: Any = first.output[-1]
    asked += [item.model_dump(exclude_none=True) for item in first.output]
    asked.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    then = c.responses.with_raw_response.create(model=model, input=asked, tools=[FLAT], reasoning=effort, store=False)
    check(then.parse().output_text == "The tools say: sunny", then.text)
    if "anthropic" in model:
        check(
            "x-fairlead-dropped" not in then.headers,
            f"its own thinking did not go back: {then.headers.get('x-fairlead-dropped')}",
        )


@case
def responses_picture(model: str) -> None:
    content: Any = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
    ]
    reply = client().responses.create(model=model, input=[{"role": "user", "content": content}])
    check(reply.output_text == "I was given 1 picture.", reply)


@once
def chat_of_a_real_model() -> None:
    reply = client().chat.completions.create(model="lab", messages=user("What is 17 + 25?"))
    check(reply.choices[0].message.content and reply.usage, reply)
    streamed = client().chat.completions.create(model="lab", messages=user("What is 17 + 25?"), stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
    check(text == reply.choices[0].message.content, text)


@once
def a_route() -> None:
    reply = client().chat.completions.with_raw_response.create(model="auto", messages=user("Hello"))
    check(reply.headers["x-fairlead-target"] == "over-openai", reply.headers)


@once
def models() -> None:
    c = client()
    names = {m.id for m in c.models.list()}
    check({"auto", "over-openai", "over-anthropic", "vectors"} <= names, names)


@once
def model_by_name() -> None:
    check(client().models.retrieve("over-openai").id == "over-openai")
    try:
        client().models.retrieve("none")
    except openai.NotFoundError as e:
        check(e.code == "model_not_found", e)
        return
    raise AssertionError("no NotFoundError")


@once
def embeddings() -> None:
    c = client()
    found = c.embeddings.create(
        model="vectors", input=["a cat", "a cat", "the sea"]
    )  # base64, as it asks for by itself
    vectors = [d.embedding for d in found.data]
    check(len(vectors) == 3 and vectors[0] == vectors[1] != vectors[2], "vectors")
    plain = c.embeddings.create(model="vectors", input="a cat", encoding_format="float")
    check(
        max(abs(a - b) for a, b in zip(plain.data[0].embedding, vectors[0], strict=True)) < 1e-6,
        "float differs from base64",
    )
    check(plain.usage.prompt_tokens > 0, plain.usage)


@once
def files() -> None:
    c = client()
    made = c.files.create(file=("lines.jsonl", io.BytesIO(b'{"a": 1}\n')), purpose="batch")
    check(c.files.retrieve(made.id).filename == "lines.jsonl", made)
    check(c.files.content(made.id).read() == b'{"a": 1}\n', "content")
    check(made.id in {f.id for f in c.files.list()}, "list")
    check(c.files.delete(made.id).deleted, "delete")
    try:
        c.files.retrieve(made.id)
    except openai.NotFoundError:
        return
    raise AssertionError("a deleted file is still there")


def _batch(endpoint: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    c = client()
    lines = [{"custom_id": str(i), "method": "POST", "url": endpoint, "body": b} for i, b in enumerate(bodies)]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = c.files.create(file=("in.jsonl", data), purpose="batch")
    batch = c.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")  # type: ignore[arg-type]
    until = time.monotonic() + 20
    while batch.status not in ("completed", "failed", "expired") and time.monotonic() < until:
        time.sleep(0.1)
        batch = c.batches.retrieve(batch.id)
    check(batch.status == "completed" and batch.output_file_id, batch)
    check(batch.id in {b.id for b in c.batches.list()}, "list")
    assert batch.output_file_id is not None
    return [json.loads(line) for line in c.files.content(batch.output_file_id).text.splitlines()]


@case
def batch_of_chats(model: str) -> None:
    out = _batch("/v1/chat/completions", [{"model": model, "messages": user(t)} for t in ("Hello", "My name is Ann.")])
    check([line["custom_id"] for line in out] == ["0", "1"], out)
    check(out[0]["response"]["body"]["choices"][0]["message"]["content"] == "Hello! How are you today?", out)


@once
def batch_of_responses_and_of_embeddings() -> None:
    out = _batch("/v1/responses", [{"model": "over-openai", "input": "Hello"}])
    check(out[0]["response"]["body"]["output"][0]["content"][0]["text"] == "Hello! How are you today?", out)
    out = _batch("/v1/embeddings", [{"model": "vectors", "input": "a cat"}])
    check(out[0]["response"]["body"]["data"][0]["embedding"], out)


def _raises(kind: type[openai.APIError], code: str | None = None, key: str = KEY, words: str = "", **body: Any) -> None:
    body = {"model": "over-openai", "messages": user("Hello"), **body}
    try:
        client(api_key=key).chat.completions.create(**body)
    except kind as e:
        check(type(e) is kind, f"{type(e).__name__} in place of {kind.__name__}")
        check(code is None or e.code == code, f"code {e.code!r}, not {code!r}")
        check(words in str(e), e)
        return
    raise AssertionError(f"no {kind.__name__}")


@once
def error_of_a_wrong_key() -> None:
    # Wrappers such as LiteLLM know the error by these words.
    _raises(openai.AuthenticationError, "invalid_api_key", key="wrong", words="Incorrect API key provided")


@once
def error_of_a_key_that_may_not() -> None:
    # It is not told that there is such a model.
    _raises(openai.NotFoundError, "model_not_found", key="fl-narrow-key-of-the-clients")


@once
def error_of_an_unknown_model() -> None:
    _raises(openai.NotFoundError, "model_not_found", model="gpt-none")


@once
def error_of_a_wrong_body() -> None:
    _raises(openai.BadRequestError, messages=[])
    _raises(openai.BadRequestError, temperature="hot")


@once
def error_of_a_long_prompt() -> None:
    for model in ("long-openai", "long-anthropic"):
        _raises(
            openai.BadRequestError, "context_length_exceeded", model=model, words="model's maximum context length is"
        )


@once
def error_of_a_limit() -> None:
    key = "fl-limited-key-of-the-clients"
    client(api_key=key).chat.completions.create(model="over-openai", messages=user("Hello"))
    try:
        client(api_key=key).chat.completions.create(model="over-openai", messages=user("Hello"))
    except openai.RateLimitError as e:
        check(float(e.response.headers["retry-after"]) > 0, e.response.headers)
        return
    raise AssertionError("no RateLimitError")


@once
def error_of_a_target_that_is_down() -> None:
    _raises(openai.InternalServerError, model="down-openai")
    _raises(openai.InternalServerError, model="down-anthropic")


@once
def error_of_a_stream_that_breaks() -> None:
    for model in ("cut-openai", "cut-anthropic"):
        text = ""
        try:
            for chunk in client().chat.completions.create(model=model, messages=user("Hello"), stream=True):
                text += chunk.choices[0].delta.content or ""
        except openai.APIError:
            check(text, "nothing came before the break")
        else:
            raise AssertionError(f"{model}: a stream that breaks ended like a whole one: {text!r}")


@once
def error_of_responses() -> None:
    for kind, body in (
        (openai.NotFoundError, {"model": "gpt-none", "input": "Hello"}),
        (openai.NotFoundError, {"model": "auto", "input": "Hello", "previous_response_id": "resp_none"}),
        (openai.BadRequestError, {"model": "auto", "input": 7}),
    ):
        try:
            client().responses.create(**body)
        except kind:
            continue
        raise AssertionError(f"no {kind.__name__} for {body}")


@once
def retries() -> None:
    asked = f"Hello, for the first time at {time.time_ns()}"
    for model in ("flaky-openai", "flaky-anthropic"):
        try:
            client().chat.completions.create(model=model, messages=user(asked + model))
        except openai.RateLimitError as e:
            check(float(e.response.headers["retry-after"]) <= 1, e.response.headers)
        else:
            raise AssertionError("no RateLimitError")
        reply = client(max_retries=2).chat.completions.create(model=model, messages=user(asked + model + "!"))
        check(reply.choices[0].message.content, reply)


if __name__ == "__main__":
    main()
