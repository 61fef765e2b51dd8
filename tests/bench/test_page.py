"""Pages: whole, escaped, self-contained, and true to what they are made from."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from msgspec.structs import replace

from fairlead.bench import page
from fairlead.bench.chains import ConfidenceColumns
from fairlead.bench.evaluate import Entrant
from fairlead.bench.page_store import from_store, levelled
from fairlead.bench.page_table import Study, _level, from_table, study
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.table import OutcomeTable
from fairlead.types import (
    Call,
    Decision,
    Failure,
    Feedback,
    Forecast,
    Option,
    Outcome,
    Query,
    Signals,
    Step,
    Tokens,
    Trace,
)

VOID = {"meta", "br", "link"}


class Checker(HTMLParser):
    """Every tag that is opened is closed, in order; collects what matters."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """Parse a page and hold it to what every page promises."""
    parser = Checker()
    parser.feed(html)
    assert not parser.open
    tags = [tag for tag, _ in parser.tags]
    assert not {"script", "img", "link", "iframe", "object"} & set(tags)
    assert not any(k in ("src", "href") or k.startswith("on") for _, attrs in parser.tags for k in attrs)
    assert "url(" not in html
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", html)
    assert tags.count("table") == tags.count("caption")
    charts = [attrs for tag, attrs in parser.tags if tag == "svg" and attrs.get("class") == "chart"]
    assert all(attrs["role"] == "img" for attrs in charts)
    assert tags.count("desc") == len(charts)
    assert all(attrs.get("tabindex") == "0" for _, attrs in parser.tags if attrs.get("class") == "scroll")
    assert not re.search(r"\bnan\b|\binf\b|None", html)
    return parser.tags


def made(n: int = 80) -> OutcomeTable:
    draw = np.random.default_rng(0)
    columns: dict[str, list[object]] = {
        k: [] for k in ("query_id", "prompt", "dataset", "model", "quality", "cost_usd")
    }
    for i in range(n):
        kind = ("sums", "<b>tales</b>")[i % 2]
        prompt = f"What is {i} + {i + 7}?" if i % 2 == 0 else f"SECRET: a long tale of castle number {i} in winter"
        for model, good, usd in (("count<er", 0.9 - 0.6 * (i % 2), 0.002), ("teller", 0.3 + 0.6 * (i % 2), 0.004)):
            row = (f"q{i}", prompt, kind, model, float(draw.random() < good), usd)
            for k, v in zip(columns, row, strict=True):
                columns[k].append(v)
    return OutcomeTable.from_columns(columns, source="/some/where/tab&le.csv")


FEATURES = {"type": "features", "signals": ["embedding", "length", "marks"]}
RIDGE = Entrant(name="ridge", spec={"type": "ridge", "l2": 10.0, "features": FEATURES})


@pytest.fixture(scope="module")
def found() -> Study:
    routers = [Entrant(name="mean", spec={"type": "mean"}), RIDGE]
    return study(made(), routers, policies={"random": {"type": "random"}}, ablate="ridge", split="2-fold", resamples=40)


def test_table_page_is_whole_and_says_what_was_found(found: Study) -> None:
    html = page.render(from_table(found))
    checked(html)
    for title in (
        "Is it worth it?", "Cost and quality", "All choosers", "Do forecasts mean what they say?", "Regret over time",
        "Who ridge picks, as cost counts more", "Who random picks, over time", "By dataset",
        "What each block of features brings", "Time to decide", "How this was measured",
    ):  # fmt: skip
        assert f">{title}</h2>" in html, title
    assert "SECRET" not in html
    assert "/some/where" not in html
    assert "tab&amp;le.csv" in html
    assert "&lt;b&gt;tales&lt;/b&gt;" in html
    assert "count&lt;er" in html
    assert "ridge without embedding" in html


def test_a_lead_that_was_picked_by_its_own_figures_is_called_so(found: Study) -> None:
    assert "chosen on these queries" not in page.render(from_table(found))  # ridge alone; mean is no candidate
    mean, ridge = (next(row for row in found.report.rows if row.name == name) for name in ("mean", "ridge"))
    three = [*found.report.rows, replace(ridge, name="more"), replace(mean, name="less")]
    html = page.render(from_table(replace(found, report=replace(found.report, rows=three))))
    assert "; highest of 3, chosen on these queries" in html  # beside the interval
    assert "ridge, highest of 3, chosen on these queries," in html  # by dataset


def test_ablation_misses_the_block_that_tells(found: Study) -> None:
    assert set(found.blocks) == {"", "embedding", "length", "marks"}
    brier = {left: curve.figures["brier"] for left, curve in found.blocks.items()}
    assert brier[""] < 0.25
    assert found.block_rows[""].aiq_over_mix is not None
    # The whole is what the comparison itself shows.
    same = next(c for c in found.result.curves if c.name == "ridge")
    assert brier[""] == pytest.approx(same.figures["brier"])


def test_regret_is_against_the_best_fixed_target(found: Study) -> None:
    table, followed = found.table, found.followed[0]
    reward = table.quality_QM - found.usd_weight * table.usd_QM
    best = int(np.argmax(reward.mean(axis=0)))
    wanted = np.mean(
        [(reward[o, best] - reward[o, p]).sum() for o, p in zip(followed.order_OT, followed.picked_OT, strict=True)]
    )
    assert f"{wanted:+.1f}" in page.render(from_table(found))
    assert found.usd_weight == pytest.approx(0.1 / 0.004)
    assert sorted(followed.order_OT[0].tolist()) == list(range(80))


def test_picks_are_those_of_the_curves(found: Study) -> None:
    for curve in found.result.curves:
        if curve.chosen_PQ is None:
            continue
        rows = np.arange(len(found.table))
        np.testing.assert_array_equal(found.table.quality_QM[rows, curve.chosen_PQ[0]], curve.quality_PQ[0])
        np.testing.assert_array_equal(found.table.usd_QM[rows, curve.chosen_PQ[-1]], curve.usd_PQ[-1])
    assert {c.name for c in found.result.curves if c.chosen_PQ is not None} >= {"ridge", "mean", "random"}


def test_level_is_the_nearest_setting(found: Study) -> None:
    curve = next(c for c in found.result.curves if c.name == "ridge")
    weights = [float(s.partition("=")[2]) for s in curve.settings]
    assert _level(curve, 0.0) == 0
    assert _level(curve, weights[7] * 1.0001) == 7


def test_what_is_left_out_is_counted_and_cascades_are_shown() -> None:
    t = made(60)
    quality, conf = t.quality_QMS.copy(), t.quality_QMS * 0.8 + 0.1
    quality[3, 0, 0] = conf[5, 1, 0] = np.nan
    holed = dataclasses.replace(t, quality_QMS=quality, extras={"conf": conf})
    out = study(
        holed, [RIDGE], confidence=ConfidenceColumns(column="conf"), ablate="ridge", split="2-fold", resamples=20
    )
    assert (out.report.dropped, len(out.table), out.report.queries) == (2, 58, 58)
    html = page.render(from_table(out))
    checked(html)
    assert ">cascade</th>" in html
    assert set(out.blocks) == {"", "embedding", "length", "marks"}
    assert not any("without" in c.name for c in out.result.curves)
    assert "2 left out" in html


def test_targets_of_equal_cost_have_no_range_to_compare_over() -> None:
    t = made(40)
    out = study(t.with_usd(np.full_like(t.usd_QMS, 0.001)), [RIDGE], split="2-fold", resamples=20)
    assert all(row.aiq_over_mix is None for row in out.report.rows)
    checked(page.render(from_table(out)))


def test_without_costs_only_quality_is_shown() -> None:
    t = made(40)
    bare = t.with_usd(np.full_like(t.usd_QMS, np.nan))
    out = study(bare, [Entrant(name="mean", spec={"type": "mean"})], split="2-fold", resamples=20)
    html = page.render(from_table(out, title="A <title>"))
    checked(html)
    assert "Cost and quality</h2>" not in html
    assert "only quality is compared" in html
    assert "Not shown: no predictor" in html
    assert "<h1>A &lt;title&gt;</h1>" in html


# ------------------------------------------------------------------------------------------------------------- store


def traces(n: int = 240) -> tuple[list[Trace], list[Feedback]]:
    """Requests to a and b<, of which some are refused, fail, are rerouted, or have no price; every second answer is judged."""
    draw = np.random.default_rng(0)
    out, judged = [], []
    for i in range(n):
        name = ("a", "b<")[int(draw.random() < 0.3)]
        quality = float(draw.uniform(0.1, 0.9))
        options = tuple(
            Option(plan=Single(target=t), probability=0.5, forecast=Forecast(quality=quality)) for t in ("a", "b<")
        )
        refused = i % 60 == 7
        decision = Decision(
            options=() if refused else options,
            chosen=("a", "b<").index(name),
            propensity=0.5,
            reasons=() if refused else (f"best {name}: quality {quality:.3f}, model llama3.1-8b",),
            policy="utility",
            version=1 + i // 120,
            excluded={"a": f"rests for {i} s"} if refused else {},
            seconds=0.001,
        )
        error = Failure(kind="no_target") if refused else Failure(kind="timeout") if i % 60 == 8 else None
        outcome = Outcome(text="SECRET ANSWER", target="" if refused else name, tokens=Tokens(), usd=0.01, error=error)
        again = i % 60 == 9
        out.append(
            Trace(
                id=f"t{i}",
                at=1e9 + 60.0 * i,
                query=Query.ask("SECRET PROMPT", id=f"t{i}"),
                signals=Signals(),
                decision=decision,
                plan=Fallback(plans=tuple(o.plan for o in options)) if again else None,
                steps=(Step(path=(1, 0, 0, 0), call=Call(target=name), outcome=outcome),) if again else (),
                outcome=outcome,
                usd=None if i % 60 == 10 else 0.01,
                seconds=0.5,
            )
        )
        if i % 2 == 0:
            judged.append(Feedback(trace_id=f"t{i}", value=0.0))
            judged.append(Feedback(trace_id=f"t{i}", value=float(draw.random() < quality)))
    return out, judged


def test_store_page_tells_what_was_seen_and_what_is_missing() -> None:
    seen, judged = traces()
    got = from_store(seen, judged, source="/var/x/store.sqlite")
    html = page.render(got)
    checked(html)
    for secret in ("SECRET", "/var/x"):
        assert secret not in html
    figures = {what: (value, note) for what, value, note in got.figures}
    assert figures["requests"][0] == "240"
    assert figures["spent"] == ("$2.36", "$10.00 per 1,000; 4 of unknown price not counted")
    assert figures["judged"][0] == "50.0%"
    assert figures["rerouted"][0] == "4"
    assert figures["refused or failed"] == ("8", "4 refused, as nobody was eligible; 4 failed")
    # A source's later judgement stands for its earlier one.
    standing = {f.trace_id: f.value for f in judged}
    assert figures["judged quality"][0] == f"{np.mean(list(standing.values())):.3f}"
    for title in (
        "Who answered, over time",
        "By target",
        "Judged quality over time",
        "Spending",
        "Failures",
        "Versions that served",
        "What is missing here",
    ):
        assert f">{title}</h2>" in html, title
    assert "b&lt;" in html
    assert "best a: quality #, model llama3.1-8b" in html
    assert "a: rests for # s" in html
    assert "no regret is shown" in html


def test_store_page_of_one_route_or_of_nothing() -> None:
    seen, judged = traces(30)
    nothing = from_store(seen, judged, route="other")
    assert nothing.figures == ()
    checked(page.render(nothing))
    few = page.render(from_store(seen[:1], [], route="auto"))
    checked(few)
    assert "no answer was judged" in few
    assert "too few to draw" in few


def test_utilities_are_not_drawn_as_qualities() -> None:
    from msgspec.structs import replace

    seen, judged = traces(60)
    bandit = [replace(t, decision=replace(t.decision, forecast_of="utility")) for t in seen]
    assert "forecast of utility" in page.render(from_store(bandit, judged))


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("quality 0.913 ± 0.02, 1,200 USD", "quality # ± #, # USD"),
        ("gpt-4o rests for 1.5e-3 s", "gpt-4o rests for # s"),
        ("llama3.1-8b at -0.5", "llama3.1-8b at #"),
    ],
)
def test_numbers_are_levelled_and_names_are_not(reason: str, wanted: str) -> None:
    assert levelled(reason) == wanted


# ------------------------------------------------------------------------------------------------------------- parts


def test_reliability_bins_hold_their_means() -> None:
    forecast = np.repeat([0.1, 0.5, 0.9], [50, 50, 3])
    quality = np.concatenate([np.zeros(50), np.ones(25), np.zeros(25), np.ones(3)])
    line = page.reliability("p", forecast, quality)
    np.testing.assert_allclose(line.x, [0.1, 0.5])
    np.testing.assert_allclose(line.y, [0.0, 0.5])


def test_many_targets_are_put_together_and_keep_their_colours() -> None:
    palette = page.Palette()
    axis = page.Axis(label="t", low=0.0, high=1.0)
    share = np.tile(np.arange(12.0)[::-1], (3, 1))
    share /= share.sum(axis=1, keepdims=True)
    names = [f"m{i}" for i in range(12)]
    html = page.shares("t", "d", axis, np.array([0.0, 0.5, 1.0]), share, names, palette)
    # The last is never picked, seven are named, four are put together.
    assert "4 others" in html
    assert "m7" not in html
    assert "m11" not in html
    first = palette("m3")
    page.shares("t", "d", axis, np.array([0.0, 0.5, 1.0]), share[:, ::-1], names, palette)
    assert palette("m3") == first
    # The eighth name has the first's colour, but not where both are shown.
    palette = page.Palette()
    for name in names:
        palette(name)
    assert palette("m7") == palette("m0")
    assert len(set(palette.apart(["m0", "m7", "m1"]))) == 3
    assert palette.apart(["m0", "m7"])[0] == palette("m0")


def test_tables_leave_out_empty_columns_and_escape() -> None:
    html = page.table("<c>", ["a", "b", "c"], [["<x>", "", "1\n<small>"]])
    assert "&lt;x&gt;" in html
    assert "<small>&lt;small&gt;</small>" in html
    assert html.count("<td") == 1
    assert html.count('scope="col"') == 2
