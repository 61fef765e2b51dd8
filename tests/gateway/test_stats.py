"""The page's sums: savings with an interval that covers, bounded memory."""

import numpy as np
import pytest

from fairlead.gateway.stats import RECENT, Stats, wilson
from fairlead.plans.single import Single
from fairlead.pool import Pool
from fairlead.types import Decision, Feedback, Option, Outcome, Profile, Query, Signals, Target, Tokens, Trace

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
    assert len(s.minutes) == 61
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
