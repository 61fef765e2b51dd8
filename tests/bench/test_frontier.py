"""The sweep over the weight of a dollar: each point is what the rule really brought."""

import numpy as np
import pytest

from fairlead.bench.frontier import Frontier, Point, frontier, to_text
from fairlead.bench.metrics import Interval
from fairlead.errors import TableError
from fairlead.testing import toy

SPEC = {"type": "knn", "features": {"signals": ["length"]}}


def test_the_ends_are_the_best_and_the_cheapest_and_all_is_between() -> None:
    table = toy(queries=240)
    found = frontier(table, SPEC, resamples=100)
    assert found.queries == 240
    assert found.best == "ant"
    quality, usd = (np.asarray([getattr(p, f).value for p in found.points]) for f in ("quality", "usd"))
    weights = [p.usd_weight for p in found.points]
    assert weights == sorted(weights)
    assert (np.diff(usd) <= 1e-12).all(), "a dearer dollar never spends more, by the forecasts; the toy's are right"
    assert quality[0] == pytest.approx(0.925, abs=0.03)
    assert (quality[-1], usd[-1]) == pytest.approx(found.singles["cat"])
    for p in found.points:
        for interval in (p.quality, p.usd, p.of_best_quality, p.of_best_usd):
            assert interval.low <= interval.value + 1e-9
            assert interval.high >= interval.value - 1e-9
    assert found.points[0].of_best_quality.value == pytest.approx(quality[0] / found.singles["ant"][0])
    hull = [p for p in found.points if p.on_hull]
    assert hull[0].quality.value == quality.max()
    text = to_text(found, rows=3)
    assert len(text.splitlines()) <= 5
    assert "best single target: ant" in text


def test_a_free_end_is_one_row_among_others() -> None:
    def exact(value: float) -> Interval:
        return Interval(value=value, low=value, high=value)

    points = tuple(
        Point(
            usd_weight=float(i),
            quality=exact(0.9 - 0.02 * i),
            usd=exact(0.001 * (24 - i)),
            of_best_quality=exact(1.0),
            of_best_usd=exact(1.0),
            on_hull=True,
        )
        for i in range(25)
    )
    found = Frontier(
        source="t", predictor="knn", queries=10, dropped=0, split="5-fold", best="b", singles={}, points=points
    )
    for rows in (2, 3, 8, 16):
        lines = to_text(found, rows=rows).splitlines()[2:]
        assert max(2, rows // 2) <= len(lines) <= rows
        assert lines[0].split()[0] == "0"
        assert lines[-1].split()[0] == "24"


def test_without_costs_there_is_nothing_to_weigh() -> None:
    table = toy(queries=40)
    with pytest.raises(TableError, match="--prices"):
        frontier(table.with_usd(np.full_like(table.usd_QMS, np.nan)), SPEC)
