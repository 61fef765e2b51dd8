"""The tiny models as targets: real inference, so small requests."""

import asyncio
import math
import threading
import time

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from fairlead.errors import ConfigError
from fairlead.lab import pool as lab
from fairlead.lab.model import Token
from fairlead.targets.local import Local
from fairlead.targets.sse import Framer
from fairlead.types import Call, Message, Profile, Query

CALL = Call(target="l")


@pytest.fixture
async def nano():
    driver = Local(name="l", model="lab-nano")
    await driver.start()
    yield driver
    await driver.stop()


def ask(text="12+34=", **fields):
    return Query.ask(text, **{"id": "q1", "max_tokens": 12, **fields})


async def stream(driver, query, call=CALL):
    writes = []

    async def sink(events):
        writes.append(events)

    outcome = await driver.ask(call, query, sink)
    return outcome, [ChatCompletionChunk.model_validate_json(e.data) for e in Framer().feed(b"".join(writes))]


async def test_answers_with_true_logprobs(nano):
    o = await nano.ask(CALL, ask(logprobs=True, top_logprobs=3))
    assert o.error is None
    assert len(o.logprobs) == len(o.text) > 0
    assert all(p <= 0 for p in o.logprobs)
    assert 0 <= o.first_entropy <= math.log(256)
    assert o.usd == pytest.approx(nano.profile.usd(o.tokens))
    assert o.tokens.input == len("12+34=") + 2
    got = ChatCompletion.model_validate_json(o.reply)
    assert (got.id, got.choices[0].message.content) == ("q1", o.text)
    content = got.choices[0].logprobs.content
    assert [c.logprob for c in content] == pytest.approx(list(o.logprobs))
    assert len(content[0].top_logprobs) == 3
    # Greedy: the token chosen is the likeliest of the alternatives.
    assert all(c.logprob == max(t.logprob for t in c.top_logprobs) for c in content)


async def test_stream_is_the_same_answer(nano):
    plain = await nano.ask(CALL, ask())
    o, chunks = await stream(nano, ask(logprobs=True, stream_options={"include_usage": True}))
    assert (o.text, o.logprobs, o.tokens) == (plain.text, plain.logprobs, plain.tokens)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.text
    assert sum(len(c.choices[0].logprobs.content) for c in chunks if c.choices and c.choices[0].logprobs) == len(o.text)
    assert chunks[-1].usage.completion_tokens == o.tokens.output
    assert o.streamed
    assert 0 < o.first_token_seconds <= o.seconds


async def test_seeds_and_samples(nano):
    hot = {"temperature": 2.0, "max_tokens": 24}
    texts = {s: (await nano.ask(Call(target="l", sample=s), ask(**hot))).text for s in range(3)}
    assert len(set(texts.values())) > 1
    assert (await nano.ask(Call(target="l", sample=2), ask(**hot))).text == texts[2]
    one, other = [(await nano.ask(CALL, ask(seed=s, **hot))).text for s in (1, 2)]
    assert one != other
    assert (await nano.ask(CALL, ask(seed=1, id="another", **hot))).text == one


async def test_several_choices(nano):
    query = ask(n=3, temperature=2.0)
    o = await nano.ask(CALL, query)
    got = ChatCompletion.model_validate_json(o.reply)
    assert [c.index for c in got.choices] == [0, 1, 2]
    assert got.choices[0].message.content == o.text
    streamed, chunks = await stream(nano, query)
    assert streamed.text == o.text
    assert {c.choices[0].index for c in chunks} == {0, 1, 2}


async def test_params_of_the_call_win(nano):
    o = await nano.ask(Call(target="l", params={"max_tokens": 1}), ask())
    assert o.tokens.output == 1
    assert o.finish == "length"


async def test_scratch_work_is_reasoning():
    driver = Local(name="l", model="lab-numbers", mode="scratch")
    await driver.start()
    query = ask("12+34=", max_tokens=60)
    o = await driver.ask(CALL, query)
    got = msgspec.json.decode(o.reply)["choices"][0]["message"]
    if o.tokens.reasoning < o.tokens.output - 1:
        assert got["reasoning_content"].endswith(">")
    assert len(got.get("reasoning_content", "")) == o.tokens.reasoning > 0
    assert ">" not in o.text
    assert len(o.logprobs) == len(o.text)
    streamed, chunks = await stream(driver, query)
    assert streamed.text == o.text == "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    await driver.stop()


STEPS = "1) 12+30; 2) reverse abc; 3) #1*4"


@pytest.fixture
async def step():
    driver = Local(name="l", model="lab-step", mode="working")
    await driver.start()
    yield driver
    await driver.stop()


def going_on(text, **fields):
    messages = (Message(role="user", content=STEPS), Message(role="assistant", content=text))
    return Call(target="l", messages=messages, params=fields)


async def test_working_is_all_text(step):
    o = await step.ask(CALL, ask(STEPS, max_tokens=None))
    assert o.tokens.reasoning == 0
    assert ">" in o.text
    assert len(o.logprobs) == len(o.text)
    scratch = Local(name="l", model="lab-step", mode="scratch")
    await scratch.start()
    other = await scratch.ask(CALL, ask(STEPS, max_tokens=None))
    await scratch.stop()
    assert o.text.partition(">")[2] == other.text


async def test_goes_on_from_what_is_written(step):
    query = ask(STEPS, max_tokens=None)
    whole = await step.ask(CALL, query)
    for cut in (1, len(whole.text) // 2):
        call = going_on(whole.text[:cut])
        rest = await step.ask(call, query)
        assert whole.text[:cut] + rest.text == whole.text
        assert rest.logprobs == pytest.approx(whole.logprobs[cut:], abs=1e-4)
        # What was there is read again, and what is new is written.
        assert rest.tokens.input == whole.tokens.input + cut
        assert rest.tokens.output == whole.tokens.output - cut
        streamed, chunks = await stream(step, query, call)
        assert streamed.text == rest.text == "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert (streamed.tokens, streamed.logprobs) == (rest.tokens, rest.logprobs)


async def test_one_step_up_to_its_end(step):
    query = ask(STEPS, max_tokens=None)
    whole = await step.ask(CALL, query)
    first, second = whole.text.split(";")[:2]
    o = await step.ask(going_on(f"{first};", stop=[";"]), query)
    assert (o.text, o.finish) == (second, "stop")
    ahead = await step.ask(going_on(f"{first};", max_tokens=1, temperature=1.0), query)
    assert (ahead.finish, ahead.tokens.output) == ("length", 1)
    # The entropy of a step's first byte is there before the step is, whatever is drawn.
    assert ahead.first_entropy == pytest.approx(o.first_entropy)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({"temperature": -1}, "bad_request"), ({"n": 0}, "bad_request"), ({"max_tokens": "many"}, "bad_request")],
)
async def test_bad_requests(nano, fields, kind):
    assert (await nano.ask(CALL, ask(**fields))).error.kind == kind


async def test_too_long(nano):
    assert (await nano.ask(CALL, ask("x" * 5000))).error.kind == "context_too_long"
    written = (Message(role="user", content="12+34="), Message(role="assistant", content="x" * 250))
    assert (await nano.ask(Call(target="l", messages=written), ask())).error.kind == "context_too_long"


class Endless:
    """A model that writes until it is stopped."""

    context_window = 99

    def __init__(self):
        self.writing, self.stopped = threading.Event(), threading.Event()

    def stream(self, prompt, **arguments):
        try:
            while True:
                self.writing.set()
                time.sleep(0.001)
                yield Token("x", -1.0, 1.0)
        finally:
            self.stopped.set()


@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_stops_the_model(nano, monkeypatch, streamed):
    endless = Endless()

    async def sink(events):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(lab, "load", lambda name: endless)
        task = asyncio.create_task(nano.ask(CALL, ask(), sink if streamed else None))
        await asyncio.to_thread(endless.writing.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(endless.stopped.wait, 5)
    assert (await nano.ask(CALL, ask())).ok


async def test_side_by_side(nano):
    alone = await nano.ask(CALL, ask())
    together = await asyncio.gather(*(nano.ask(CALL, ask()) for _ in range(8)))
    assert {o.text for o in together} == {alone.text}


async def test_constructor():
    driver = Local(name="l", model="lab-small")
    assert driver.profile.input_usd_per_mtok > 0
    assert not driver.profile.tools
    assert (await driver.ask(CALL, ask())).error.kind == "internal"
    assert Local(name="l", profile=Profile(quality=0.5)).profile == Profile(quality=0.5)
    with pytest.raises(ConfigError, match="lab-nano"):
        Local(name="l", model="lab-nan")
    with pytest.raises(ConfigError, match="mode"):
        Local(name="l", model="lab-nano", mode="scratch")
