"""Metrics: the text format, bounded labels, disjoint tokens, what others keep, and several workers as one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from gateways import serving
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fairlead.config import Config, make
from fairlead.errors import StoreError
from fairlead.gateway.door import hashed
from fairlead.gateway.metrics import Counter, Histogram, Metrics, Sharing, added, rendered, written
from fairlead.plans.single import Single
from fairlead.spending import Limit
from fairlead.sqlite import SQLiteStore
from fairlead.sqlstore import kept_at
from fairlead.types import Act, Call, Decision, Failure, Option, Outcome, Query, Signals, Step, Tokens, Trace

PRICE = {"input_usd_per_mtok": 100.0, "output_usd_per_mtok": 100.0, "max_output_tokens": 1}


def read(text: bytes | str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Parse an exposition with the reference parser: sample name -> labels -> value."""
    out: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text if isinstance(text, str) else text.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in out.setdefault(sample.name, {}), f"{sample.name} {labels} is there twice"
            out[sample.name][labels] = sample.value
    return out


def of(found: dict[str, dict[tuple[tuple[str, str], ...], float]], name: str, **labels: str) -> float:
    return found[name][tuple(sorted(labels.items()))]


def made(tmp_path: Path, **file: Any) -> Config:
    targets = {
        "cheap": {"type": "scripted", "replies": ["four"], "profile": PRICE},
        "slow": {"type": "scripted", "replies": ["4"], "profile": {**PRICE, "concurrent": 2}},
    }
    gateway = {"port": 0, **file.pop("gateway", {})}
    routes = {"auto": {"policy": {"type": "fixed", "plan": "cheap"}}, **file.pop("routes", {})}
    store = {"path": str(tmp_path / "store.sqlite")}
    return make({"targets": targets, "routes": routes, "store": store, "gateway": gateway, **file})


def trace(*outcomes: Outcome, **more: Any) -> Trace:
    decision = Decision(options=(Option(plan=Single(target="a"), probability=1.0),), chosen=0, propensity=1.0)
    steps = tuple(Step(path=(0, i), call=Call(target=o.target), outcome=o) for i, o in enumerate(outcomes))
    query = Query(id="q", messages=(), route="auto")
    shown = {"decision": decision, "outcome": outcomes[-1], **more}
    return Trace(id="q", at=0.0, query=query, signals=Signals(), steps=steps, **shown)


def counted(*traces: Trace, **more: Any) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    metrics = Metrics()
    for t in traces:
        said = {"status": 200, "seconds": 0.3, "overhead": 0.002, "first_byte": None, "fallbacks": 0, **more}
        metrics.note(t, **said)
    return read(metrics.text())


# ------------------------------------------------------------------------------------------------------ one process


def test_tokens_are_disjoint_and_spend_goes_to_whom_it_was_spent_on() -> None:
    judge = Outcome(target="judge", tokens=Tokens(input=7, output=1), usd=0.25)
    rich = Tokens(input=100, cached_input=30, cache_write=20, image_input=10, output=50, reasoning=40)
    found = counted(trace(judge, Outcome(target="a", tokens=rich, usd=0.5, retries=2)), trace(judge))
    kinds = {dict(k)["kind"]: v for k, v in found["fairlead_tokens_total"].items() if dict(k)["target"] == "a" and v}
    assert kinds == {
        "cached_input": 30,
        "cache_write": 20,
        "image_input": 10,
        "input": 40,
        "reasoning": 40,
        "output": 10,
    }
    assert sum(kinds.values()) == rich.input + rich.output
    assert of(found, "fairlead_usd_total", route="auto", target="judge") == 0.5
    assert of(found, "fairlead_usd_total", route="auto", target="a") == 0.5
    assert of(found, "fairlead_retries_total", target="a") == 2
    assert of(found, "fairlead_requests_total", route="auto", target="a", status="2xx") == 1


@given(st.builds(Tokens, input=st.integers(0, 9), cached_input=st.integers(0, 12), output=st.integers(0, 9)))
def test_the_short_way_of_counting_tokens_is_the_long_one(tokens: Tokens) -> None:
    found = counted(trace(Outcome(target="a", tokens=tokens)))["fairlead_tokens_total"]
    assert {dict(k)["kind"]: v for k, v in found.items() if v} == tokens.kinds()


def test_failures_limits_acts_and_streams_are_counted() -> None:
    broken = Outcome(target="a", error=Failure(kind="timeout"))
    late = trace(broken, Outcome(target="b", limited="deadline"), acts=(Act(name="mask", did="masked"),))
    found = counted(late, first_byte=0.1, events=5, fallbacks=1)
    assert of(found, "fairlead_failures_total", target="a", kind="timeout") == 1
    assert of(found, "fairlead_limited_total", route="auto", limit="deadline") == 1
    assert of(found, "fairlead_acts_total", action="mask", did="masked") == 1
    assert of(found, "fairlead_stream_events_total", route="auto") == 5
    assert of(found, "fairlead_fallbacks_total", route="auto") == 1
    assert of(found, "fairlead_first_byte_seconds_count", route="auto") == 1
    assert of(found, "fairlead_call_seconds_count", target="a") == 1


@given(st.lists(st.floats(0.0, 400.0)), st.tuples(st.floats(0.01, 1.0), st.floats(1.5, 300.0)))
def test_a_histogram_counts_what_is_at_most_its_bound(values: list[float], bounds: tuple[float, float]) -> None:
    histogram = Histogram("h_seconds", "Help.", ("who",), bounds=bounds)
    for v in [*values, *bounds]:
        histogram.labels("x").observe(v)
    found = read(rendered([histogram.family()]))
    for bound in bounds:
        expected = sum(v <= bound for v in [*values, *bounds])
        assert of(found, "h_seconds_bucket", who="x", le=repr(bound)) == expected
    assert of(found, "h_seconds_bucket", who="x", le="+Inf") == of(found, "h_seconds_count", who="x") == len(values) + 2
    assert of(found, "h_seconds_sum", who="x") == pytest.approx(sum(values) + sum(bounds))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20))
def test_any_label_value_survives_the_format(value: str) -> None:
    counter = Counter("c_total", "Help with \\ and\nlines.", ("b", "a"))
    counter.labels(value, "1").inc(2)
    assert of(read(rendered([counter.family()])), "c_total", a="1", b=value) == 2


def test_what_cannot_be_read_is_left_out_and_counted() -> None:
    def gone() -> float:
        raise StoreError("gone")

    metrics = Metrics()
    metrics.watch("fairlead_gone", "Gone.", gone)
    metrics.text()
    found = read(metrics.text())
    assert "fairlead_gone" not in found
    assert of(found, "fairlead_scrape_failures_total", metric="fairlead_gone") == 2


async def test_what_others_keep_is_shown(tmp_path: Path) -> None:
    limits = {"team:red": {"budgets": [{"usd": 3.0, "period": "month"}]}}
    keys = {"ann": {"hash": hashed("fl-ann"), "team": "red", "limits": {"requests_per_minute": 2}}}
    async with serving(made(tmp_path, gateway={"keys": keys, "limits": limits})) as client:
        for status in (200, 200, 429):
            assert (await client.ask("fl-ann"))[0] == status
        health = client.gateway.router.pool.health
        for _ in range(health.failures):
            health.failed("slow", Failure(kind="unavailable"))
        async with client.http.get("/metrics", headers={"authorization": "Bearer fl-ann"}) as r:
            assert r.headers["content-type"].startswith("text/plain; version=0.0.4")
            found = read(await r.text())
    assert of(found, "fairlead_rate_limited_total", limit="requests") == 1
    assert of(found, "fairlead_breaker_state", target="slow") == 2
    assert of(found, "fairlead_breaker_state", target="cheap") == 0
    assert of(found, "fairlead_resting_seconds", target="slow") > 0
    assert of(found, "fairlead_queue_waiting", target="slow") == 0
    assert of(found, "fairlead_budget_limit_usd", account="team:red", period="month") == 3.0
    spent = of(found, "fairlead_budget_spent_usd", account="team:red", period="month")
    assert spent == pytest.approx(of(found, "fairlead_usd_total", route="auto", target="cheap")) != 0
    assert of(found, "fairlead_routed_usd_total") == pytest.approx(spent)
    assert of(found, "fairlead_strongest_usd_total") > 0
    assert of(found, "fairlead_config_info", digest=client.gateway.config_digest) == 1
    assert of(found, "fairlead_store_up") == of(found, "fairlead_leader") == 1
    assert of(found, "fairlead_policy_version", route="auto") >= 1
    assert of(found, "process_resident_memory_bytes") > 1e6
    assert of(found, "fairlead_in_flight") == 0
    assert "ann" not in str(found.keys()) + str([k for v in found.values() for k in v]), "no label holds a key's name"


@pytest.mark.parametrize("shared", [False, True])
async def test_a_routes_budget_is_shown_wherever_it_is_kept(tmp_path: Path, shared: bool) -> None:
    async with serving(made(tmp_path, gateway={"shared": shared})) as client:
        client.gateway.router.spending.limits["auto"] = Limit(usd=2.0, seconds=86400.0)
        assert (await client.ask())[0] == 200
        found = read(await asyncio.to_thread(client.gateway.metrics.text))
    at = {"account": "route:auto", "period": "86400s"}
    assert of(found, "fairlead_budget_limit_usd", **at) == 2.0
    spent = of(found, "fairlead_usd_total", route="auto", target="cheap")
    assert of(found, "fairlead_budget_spent_usd", **at) == pytest.approx(spent, abs=1e-6) != 0


async def test_names_and_labels_follow_the_rules(tmp_path: Path) -> None:
    """Base units, `_total` on counters and on nothing else, labels of a known, bounded set."""
    async with serving(made(tmp_path)) as client:
        await client.ask()
        await client.ask(model="no-such-model-of-a-client")
        families = client.gateway.metrics.families()
    bounded = {"route", "target", "status", "kind", "limit", "guard", "action", "did", "metric", "digest", "le"}
    bounded |= {"account", "period", "version", "python"}
    for f in families:
        assert (f.kind == "counter") == f.name.endswith("_total"), f.name
        assert not f.name.endswith(("_ms", "_milliseconds", "_cents")), f.name
        assert f.help.endswith("."), f.name
        for _, labels, _ in f.samples:
            names = {part.partition("=")[0] for part in labels.split(",") if part}
            assert names <= bounded, f.name
    assert b"no-such-model" not in rendered(families)


async def test_a_restart_does_not_count_old_savings_again(tmp_path: Path) -> None:
    for spent in (True, False):
        async with serving(made(tmp_path)) as client:
            if spent:
                await client.ask()
            assert client.gateway.stats.requests == 1
            assert (client.gateway.stats.since_start()[0] > 0) == spent


# ---------------------------------------------------------------------------------------------------------- workers


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_workers_are_shown_as_one_and_the_dead_keep_their_counters(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    where = str(tmp_path / "s.sqlite") if kind == "sqlite" else str(request.getfixturevalue("postgres_url"))
    store = kept_at(where, outage="refuse")
    every = [Metrics() for _ in range(3)]
    sharing = [Sharing(one, store, run="r", worker=i, seconds=60) for i, one in enumerate(every)]
    other = Sharing(Metrics(), store, run="another parent", worker=7, seconds=60)
    again = Sharing(Metrics(), store, run="r", worker=2, seconds=60)
    store.start()
    try:
        for i, (one, its) in enumerate(zip(every, sharing, strict=True)):
            one.watch("fairlead_in_flight", "In flight.", lambda i=i: 10.0 + i)  # type: ignore[misc]
            one.watch("fairlead_budget_limit_usd", "Limit.", lambda: 5.0, alone=True)
            one.note(
                trace(Outcome(target="a", usd=0.5)), status=200, seconds=1.0, overhead=0.1, first_byte=None, fallbacks=0
            )
            await its.start()
        await other.start()
        text = await asyncio.to_thread(sharing[0].text)
        found = read(text)
        asked = {k: v for k, v in found["fairlead_requests_total"].items() if v}
        assert sorted(dict(k)["worker"] for k in asked) == ["0", "1", "2"]
        assert sum(asked.values()) == 3
        assert of(found, "fairlead_in_flight", worker="2") == 12.0
        assert list(found["fairlead_budget_limit_usd"].values()) == [5.0], "once, and no worker's"
        assert text.count(b"# TYPE fairlead_requests_total") == 1
        assert len(found["fairlead_worker_age_seconds"]) == 3
        await store.transact(
            "test", lambda c: c.execute("UPDATE gateway_metrics SET at = at - ? WHERE worker = 2", (60.0,)).rowcount
        )
        found = read(await asyncio.to_thread(sharing[0].text))
        assert sum(found["fairlead_requests_total"].values()) == 3, "counters stay"
        assert len(found["fairlead_in_flight"]) == 2, "a dead worker has nothing under way"
        # The one that is started in its place goes on from there.
        await again.start()
        again.metrics.note(
            trace(Outcome(target="a")), status=200, seconds=1.0, overhead=0.1, first_byte=None, fallbacks=0
        )
        found = read(await asyncio.to_thread(again.text))
        assert of(found, "fairlead_requests_total", route="auto", target="a", status="2xx", worker="2") == 2
        assert of(found, "fairlead_request_seconds_count", route="auto", worker="2") == 2
        assert of(found, "fairlead_usd_total", route="auto", target="a", worker="2") == 0.5
        for its in (*sharing, other, again):
            await its.stop()
    finally:
        await asyncio.to_thread(store.stop)


async def test_without_the_store_a_worker_shows_itself(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.sqlite")
    its = Sharing(Metrics(), store, run="r", worker=0, seconds=60)
    store.start()
    await its.start()
    await its.stop()
    await asyncio.to_thread(store.stop)
    (tmp_path / "s.sqlite").unlink()
    found = read(await asyncio.to_thread(its.text))
    assert of(found, "process_start_time_seconds", worker="0") > 0


def test_added_keeps_what_only_the_dead_had_counted() -> None:
    counter = Counter("c_total", "Help.", ("a",))
    counter.labels("x").inc(2)
    before = counter.family()
    counter = Counter("c_total", "Help.", ("a",))
    counter.labels("y").inc(3)
    found = read(rendered([added(counter.family(), before)]))
    assert (of(found, "c_total", a="x"), of(found, "c_total", a="y")) == (2, 3)
    assert written(("b", "a"), ("1", "2")) == 'a="2",b="1"'


async def test_sharing_outlives_a_metric_that_breaks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, one, asked = SQLiteStore(tmp_path / "s.sqlite"), Metrics(), asyncio.Event()
    its = Sharing(one, store, run="r", worker=0, seconds=0.01)
    loop, reads = asyncio.get_running_loop(), iter((1.0, "no number", 3.0))

    def read() -> Any:
        if (found := next(reads, None)) is None:
            loop.call_soon_threadsafe(asked.set)
        return found or 4.0

    one.watch("fairlead_odd", "Odd.", read)
    store.start()
    await its.start()
    await asyncio.wait_for(asked.wait(), 10.0)
    await its.stop()
    await asyncio.to_thread(store.stop)
    assert "the metrics could not be shared" in caplog.text
