"""The page's sums: savings with an interval that covers, drift that is found, bounded memory, several workers shown as one."""

from pathlib import Path

import numpy as np
import pytest
from gateways import config, serving, where  # noqa: F401 - a fixture
from msgspec.structs import replace

from fairlead.gateway.metrics import Place
from fairlead.gateway.stats import RECENT, WINDOW, Stats, drift, quantile, time_bin, total, wilson
from fairlead.plans.single import Single
from fairlead.pool import Pool
from fairlead.types import Decision, Failure, Feedback, Option, Outcome, Profile, Query, Signals, Target, Tokens, Trace

POOL = Pool(
    targets=(
        Target(name="cheap", profile=Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)),
        Target(name="dear", profile=Profile(input_usd_per_mtok=10.0, output_usd_per_mtok=10.0)),
    )
)


def stats() -> Stats:
    return Stats(pool=POOL, routes=["auto"], strongest=None, text=True)


def trace(i: int, target: str, tokens: int, *, route: str = "auto") -> Trace:
    counted = Tokens(input=tokens, output=0)
    usd = POOL[target].profile.usd(counted)
    return Trace(
        id=f"t{i}",
        at=60.0 * i,
        query=Query(id=f"t{i}", messages=(), route=route),
        signals=Signals(),
        decision=Decision(options=(Option(plan=Single(target=target), probability=1.0),), chosen=0, propensity=1.0),
        outcome=Outcome(target=target, tokens=counted, usd=usd),
        usd=usd,
    )


def test_savings_by_hand() -> None:
    s = stats()
    s.add(trace(1, "cheap", 1_000_000))
    s.add(trace(2, "dear", 1_000_000))
    s.add(trace(3, "cheap", 5_000_000, route="cheap"))  # asked for by name: not routed
    saved = s.savings()
    assert (saved["strongest"], saved["n"]) == ("dear", 2)
    assert saved["usd"] == pytest.approx(9.0)
    assert saved["share"] == pytest.approx(1.0 - 11.0 / 20.0)
    # r = 0.55; residuals 1 - 5.5 and 10 - 5.5; n / (n - 1) * 40.5 / 400
    assert saved["share"] - saved["low"] == pytest.approx(1.96 * np.sqrt(2 * 40.5) / 20.0)


@pytest.mark.parametrize(
    ("failure", "refused"),
    [
        (Failure(kind="blocked"), True),
        (Failure(kind="budget"), True),
        (Failure(kind="budget", status=503), False),
        (Failure(kind="unavailable"), False),
    ],
)
def test_what_is_turned_down_on_purpose_is_no_failure(failure: Failure, refused: bool) -> None:
    """A guard's no, and an account that has not enough left to begin; not that nobody can say what is left."""
    s = stats()
    s.add(replace(trace(1, "cheap", 0), outcome=Outcome(error=failure)))
    assert (s.counted.refused, s.counted.failures) == (int(refused), int(not refused))


def test_the_interval_covers() -> None:
    """Of 400 samples of 200 requests the 95% interval holds the true share in 92% to 98% (three standard errors are 3.3 points)."""
    rng = np.random.default_rng(7)
    p, true = 0.7, 1.0 - (0.7 * 1.0 + 0.3 * 10.0) / 10.0
    inside = 0
    for _ in range(400):
        s = stats()
        sizes = rng.integers(1_000, 100_000, 200).tolist()
        for i, (size, cheap) in enumerate(zip(sizes, (rng.random(200) < p).tolist(), strict=True)):
            s._save(trace(i, "cheap" if cheap else "dear", size))
        saved = s.savings()
        inside += saved["low"] <= true <= saved["high"]
    assert 0.917 <= inside / 400 <= 0.983


def test_memory_is_bounded() -> None:
    s = stats()
    for i in range(500):
        s.add(trace(i, "cheap", 10))
    assert len(s.recent) == RECENT
    assert len(s.counted.minutes) == 61
    assert s.show()["requests"] == 500


def test_judgements() -> None:
    s = stats()
    s.add(trace(1, "cheap", 10))
    s.judge(Feedback(trace_id="t1", value=1.0))
    s.judge(Feedback(trace_id="t1", value=0.0))
    s.judge(Feedback(trace_id="gone", value=0.0))
    cheap = s.show()["targets"][0]
    assert (cheap["judged"], cheap["quality"]) == (1, 0.0)
    assert s.show()["recent"][0]["feedback"] == 0.0


def test_wilson() -> None:
    assert wilson(0.0, 0) == (None, None)
    low, high = wilson(8.0, 10)
    assert low == pytest.approx(0.490, abs=1e-3)
    assert high == pytest.approx(0.943, abs=1e-3)


def test_what_two_counted_adds_up() -> None:
    """Sums of two processes are those of one that saw everything."""
    one, two, both = stats(), stats(), stats()
    for i in range(300):
        its = trace(i, "cheap" if i % 3 else "dear", 10 * i)
        (one if i % 2 else two).add(its)
        both.add(its)
        (one if i % 5 else two).judge(Feedback(trace_id=f"t{i}", value=(i % 4) / 3, at=float(i + 1)), trace=its)
        both.judge(Feedback(trace_id=f"t{i}", value=(i % 4) / 3, at=float(i + 1)))
    one.turn_away("rate_limit_exceeded")
    both.turn_away("rate_limit_exceeded")
    shown, other = total((one.counted, two.counted)), both.counted
    for field in other.__struct_fields__:
        mine, its = getattr(shown, field), getattr(other, field)
        if field in ("requests", "failures", "by_route", "turned_away", "judgements"):
            assert mine == its, field
    for name in ("cheap", "dear"):
        mine, its = shown.targets[name], other.targets[name]
        assert (mine.requests, mine.judged, mine.times) == (its.requests, its.judged, its.times)
        assert (mine.usd, mine.quality) == pytest.approx((its.usd, its.quality))
    assert shown.saved == pytest.approx(other.saved)
    assert all(len(ring) == 2 * WINDOW for name, ring in shown.judgements.items() if name == "cheap")


def test_a_judgement_of_anothers_answer_and_its_revision() -> None:
    """Whichever process takes a judgement, it is counted once; a later one of the same source takes its place."""
    one, two = stats(), stats()
    its = trace(1, "cheap", 10)
    one.add(its)
    assert not two.judge(Feedback(trace_id="t1", value=1.0))
    assert two.judge(Feedback(trace_id="t1", value=1.0), trace=its)
    assert one.judge(Feedback(trace_id="t1", value=0.25), before=1.0)
    assert two.judge(Feedback(trace_id="t1", value=0.5), trace=its, before=0.25)
    cheap = total((one.counted, two.counted)).targets["cheap"]
    assert (cheap.judged, cheap.quality) == (1, pytest.approx(0.5))


def test_drift_by_hand() -> None:
    def judged(*values: float, forecast: float | None = None) -> list[list[float | None]]:
        return [[float(i), v, forecast] for i, v in enumerate(values)]

    assert drift(judged(*[1.0] * 39)) is None  # too few on either side
    assert drift([]) is None
    found = drift(judged(*[1.0, 0.0] * 50, *[1.0, 1.0, 1.0, 0.0] * 25))
    assert found is not None
    assert (found["before"], found["now"], found["change"]) == (0.5, 0.75, 0.25)
    half = 2.576 * np.sqrt(0.25 * 100 / 99 / 100 + 0.1875 * 100 / 99 / 100)
    assert found["change_high"] - found["change"] == pytest.approx(half)
    assert found["gap"] is None
    told = drift(judged(*[1.0, 0.0] * 10, forecast=0.8))
    assert told is not None
    assert (told["change"], told["gap"]) == (None, pytest.approx(-0.3))


def test_drift_is_found_and_seldom_told_without_cause() -> None:
    """A fall from 85% to 60% is marked in 90% or more of 300 runs; with no change 1% or so is (3 in 300; the bound is 4 standard errors above)."""
    rng = np.random.default_rng(3)

    def marked(before: float, now: float) -> int:
        n = 0
        for _ in range(300):
            values = [*(rng.random(WINDOW) < before), *(rng.random(WINDOW) < now)]
            found = drift([[0.0, float(v), None] for v in values])
            assert found is not None
            n += found["change_low"] > 0.0 or found["change_high"] < 0.0
        return n

    assert marked(0.85, 0.6) >= 270
    assert marked(0.8, 0.8) <= 3 + 4 * np.sqrt(3)


def test_quantiles_are_right_within_a_tenth() -> None:
    rng = np.random.default_rng(5)
    seconds = np.exp(rng.normal(-2.0, 1.5, 5000))
    bins: dict[int, int] = {}
    for s in seconds.tolist():
        bins[time_bin(s)] = bins.get(time_bin(s), 0) + 1
    for share in (0.05, 0.5, 0.95, 0.99):
        assert quantile(bins, share) == pytest.approx(float(np.quantile(seconds, share)), rel=0.1)
    assert quantile({}, 0.5) is None
    assert quantile({time_bin(0.0): 1}, 0.5) < 1e-5  # type: ignore[operator]
    assert len(bins) < 80


def test_rules_and_those_turned_away_are_counted() -> None:
    s = stats()
    its = trace(1, "cheap", 10)
    ruled = Trace(
        id="r",
        at=60.0,
        query=its.query,
        signals=its.signals,
        outcome=its.outcome,
        decision=Decision(options=its.decision.options, chosen=0, propensity=1.0, rule="long", guards=("private",)),
    )
    s.add(ruled)
    s.add(ruled)
    for i in range(200):
        s.turn_away(f"code {i}")
    shown = s.show()
    assert shown["rules"] == {"auto": {"long": 2}}
    assert shown["guards"] == {"private": 2}
    assert len(shown["turned_away"]) == 64


async def test_workers_are_one_page(tmp_path: Path, where: dict[str, object]) -> None:  # noqa: F811
    """Whichever of two workers is asked, it shows the requests, the judgements and what is under way of both; one that died and came back goes on."""
    settings = config(tmp_path, store=where, workers=2, shared=True, admin_keys={})
    async with serving(settings) as before:
        await before.ask()
    async with serving(settings, place=Place(run="r", worker=0)) as one:
        async with serving(settings, place=Place(run="r", worker=1)) as two:
            for client, n in ((one, 3), (two, 2)):
                ids = [(await client.ask())[1]["id"] for _ in range(n)]
                # Each judges the other's answers; the second time it is revised here.
                other = two if client is one else one
                for id in ids:
                    await other.ask(path="/v1/feedback", json={"id": id, "value": 1.0})
                await client.ask(path="/v1/feedback", json={"id": ids[0], "value": 0.0})
                await client.ask(model="no such model")
            for client in (one, two):
                shared = client.gateway.page.shared
                assert shared is not None
                await shared.write()
            found = [(await client.ask(path="/v1/stats", method="GET"))[1] for client in (one, two)]
            for stats in found:
                assert stats["requests"] == stats["traces"] == 6
                assert stats["turned_away"] == {"model_not_found": 2}
                assert stats["covers"] == {"workers": 2, "of": 2, "whole": True, "configs": 1}
                (cheap,) = [t for t in stats["targets"] if t["name"] == "cheap"]
                assert (cheap["requests"], cheap["judged"], cheap["quality"]) == (6, 5, pytest.approx(0.6))
                assert sum(stats["minutes"]) == 6
        async with serving(settings, place=Place(run="r", worker=1)) as again:
            await again.ask()
            stats = (await again.ask(path="/v1/stats", method="GET"))[1]
            assert (stats["requests"], stats["traces"]) == (7, 7)
            (cheap,) = [t for t in stats["targets"] if t["name"] == "cheap"]
            assert (cheap["judged"], cheap["quality"]) == (5, pytest.approx(0.6))


async def test_a_reload_goes_on_counting(tmp_path: Path) -> None:
    made = config(tmp_path, admin_keys={})
    async with serving(made, load=lambda: config(tmp_path, max_in_flight=7, admin_keys={})) as client:
        await client.ask()
        await client.gateway.reload()
        await client.ask()
        stats = (await client.ask(path="/v1/stats", method="GET"))[1]
        assert stats["requests"] == stats["traces"] == 2
        assert stats["routes"][0]["requests"] == 2
