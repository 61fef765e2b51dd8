"""The reader of pictures as a target, and `modality` live on it."""

import msgspec
import pytest

from fairlead.lab.eye import draw_tables, eye
from fairlead.plans.base import decode
from fairlead.targets.eye import PRICE, Eye
from fairlead.targets.local import Local
from fairlead.types import Call, Message, Profile, Query
from fairlead.worlds.live import Live

CALL = Call(target="e")
TABLES = draw_tables(20, 3)
READ = eye().read(TABLES[0].picture, TABLES[0].key)


@pytest.fixture
async def driver():
    made = Eye(name="e")
    await made.start()
    yield made
    await made.stop()


async def test_reads_the_picture_and_says_how_sure_it_is(driver):
    for table in TABLES:
        o = await driver.ask(CALL, table.query("q"))
        seen = eye().read(table.picture, table.key)
        assert (o.text, o.logprobs, o.finish) == (seen.text, seen.logprobs, "stop")
        assert o.tokens.input == 4 * 4 * table.pairs
        assert o.usd == pytest.approx((0.25 * o.tokens.input + o.tokens.output) * PRICE / 1e6)


async def test_a_question_in_words(driver):
    table = TABLES[0]
    message = [
        {"role": "system", "content": "Read."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": table.url}},
                {"type": "text", "text": f"What is the number of {table.key}?"},
            ],
        },
    ]
    query = msgspec.structs.replace(table.query("q"), body={"messages": msgspec.Raw(msgspec.json.encode(message))})
    assert (await driver.ask(CALL, query)).text == READ.text


def with_urls(*urls, text=TABLES[0].prompt):
    content = [{"type": "text", "text": text}, *({"type": "image_url", "image_url": {"url": u}} for u in urls)]
    body = {"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": content}]))}
    return msgspec.structs.replace(TABLES[0].query("q"), body=body)


@pytest.mark.parametrize(
    "query",
    [
        Query.ask("ka=31; ka?"),
        with_urls(TABLES[0].url, TABLES[0].url),
        with_urls("https://example.com/a.png"),
        with_urls("data:image/png;base64,no base64"),
        with_urls("data:image/png;base64,aGVsbG8="),
        with_urls(TABLES[0].url, text=""),
        with_urls(TABLES[0].url, text="which one?"),
    ],
)
async def test_anything_else_is_a_bad_request(driver, query):
    o = await driver.ask(CALL, query)
    assert o.error.kind == "bad_request"
    assert o.text == ""


async def test_what_a_plan_took_the_pictures_from_has_none(driver):
    query = TABLES[0].query("q")
    call = Call(target="e", messages=(Message(role="user", content=TABLES[0].prompt),))
    assert (await driver.ask(call, query)).error.kind == "bad_request"
    assert (await driver.ask(Call(target="e", messages=query.messages), query)).text == READ.text


def test_constructor():
    assert Eye(name="e").profile.modalities == {"text", "image"}
    assert Eye(name="e", profile=Profile(quality=0.5)).profile == Profile(quality=0.5)


async def test_modality_runs_live(driver):
    text = Local(name="t", model="lab-text")
    await text.start()
    plan = decode({"kind": "modality", "text": "t", "image": "e", "arbiter": "t"})
    world = Live(drivers={"t": text, "e": driver})
    agreed = 0
    for table in TABLES[:6]:
        run = await world.run(plan, table.query("q"))
        assert run.outcome.ok
        assert [s.call.target for s in run.steps[:2]] == ["t", "e"]
        agreed += len(run.steps) == 2
    assert agreed
    only = decode({"kind": "modality", "text": "t", "image": "e"})
    run = await world.run(only, msgspec.structs.replace(TABLES[0].query("q"), messages=_no_words(TABLES[0])))
    assert run.outcome.target == "e"
    await text.stop()


def _no_words(table):
    (message,) = table.query("q").messages
    return (msgspec.structs.replace(message, content=message.content[1:]),)
