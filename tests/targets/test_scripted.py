"""The double, and that it behaves like the server that plays the same script."""

import msgspec
import pytest

from fairlead.build import build
from fairlead.targets.openai_chat import OpenAIChat
from fairlead.targets.scripted import Reply, Scripted
from fairlead.targets.scripted_server import ScriptedServer
from fairlead.targets.sse import Framer
from fairlead.types import Call, Failure, Query, Tokens

CALL = Call(target="s")


class Client:
    def __init__(self):
        self.data = b""

    async def __call__(self, events):
        self.data += events

    @property
    def text(self):
        chunks = [msgspec.json.decode(e.data) for e in Framer().feed(self.data)]
        return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


async def test_replies_take_turns():
    driver = Scripted(name="s", replies=("a", Reply(text="b", confidence=0.5)))
    got = [await driver.ask(CALL, Query.ask("x")) for _ in range(3)]
    assert [o.text for o in got] == ["a", "b", "a"]
    assert got[1].confidence == 0.5
    assert len(driver.asked) == 3


async def test_timeout():
    driver = Scripted(name="s", replies=(Reply(hang=True),), timeout_seconds=0.01)
    assert (await driver.ask(CALL, Query.ask("x"))).error.kind == "timeout"


def test_from_config():
    spec = {"type": "scripted", "replies": ["a", {"text": "b", "error": {"kind": "rate_limited", "status": 429}}]}
    driver = build("targets", spec, name="s")
    assert driver.replies == ("a", Reply(text="b", error=Failure(kind="rate_limited", status=429)))
    again = {k: v for k, v in driver.spec().items() if k != "name"}
    assert build("targets", again, name="s").spec() == driver.spec()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        Reply(text="two  words "),
        Reply(text=""),
        Reply(tokens=Tokens(input=9, output=2)),
        Reply(usage=False),
        Reply(error=Failure(kind="rate_limited", message="slow", status=429, retry_after_seconds=3.0)),
        Reply(error=Failure(kind="unavailable", message="down", status=500)),
        Reply(text="a b c", cut_after_chunks=2, word_seconds=0.01),
        Reply(text="a b c", cut_after_chunks=0),
        Reply(text="a b", malformed_chunk=0),
        Reply(
            tool_calls=({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},),
            text="",
            finish="tool_calls",
        ),
    ],
)
async def test_same_as_over_http(reply, streamed):
    query = Query.ask("hello there", id="q")
    here, there = (Client(), Client()) if streamed else (None, None)
    double = Scripted(name="s", replies=(reply,))
    async with ScriptedServer(replies=(reply,)) as server:
        driver = OpenAIChat(name="s", model="m", base_url=server.url)
        await driver.start()
        a, b = await double.ask(CALL, query, here), await driver.ask(CALL, query, there)
        await driver.stop()
    assert (a.ok, a.text, a.finish, a.streamed) == (b.ok, b.text, b.finish, b.streamed)
    assert (a.error and a.error.kind) == (b.error and b.error.kind)
    assert (a.error and a.error.retry_after_seconds) == (b.error and b.error.retry_after_seconds)
    assert (a.tokens is None) == (b.tokens is None)
    if reply.tokens is not None:
        assert a.tokens == b.tokens
    if streamed:
        assert here.text == there.text
