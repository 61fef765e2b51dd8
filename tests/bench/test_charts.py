"""Charts are well-formed SVG, place things where they belong, and escape what they are given."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from fairlead.bench import charts as c

NASTY = '<script>alert("&")</script>'


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_plane_is_well_formed_titled_and_escaped() -> None:
    x, y = c.spanning(NASTY, [np.array([1.0, 10.0])], log=True), c.spanning("q", [np.array([0.0, 1.0])])
    line = c.Line(
        name=NASTY, x=np.array([1.0, 5.0, np.nan]), y=np.array([0.1, 0.9, 0.5]), low=np.zeros(3), high=np.ones(3)
    )
    svg = c.plane(NASTY, NASTY, x, y, [line], [c.Point(name=NASTY, x=2.0, y=0.5)], zero=True)
    root = parsed(svg)
    assert root.get("role") == "img"
    assert [e.tag for e in root][:2] == ["title", "desc"]
    assert "<script" not in svg
    assert "nan" not in svg


def test_values_lie_where_the_axis_says() -> None:
    linear, log = c.Axis(label="", low=-1.0, high=3.0), c.Axis(label="", low=1.0, high=100.0, log=True)
    assert linear.place(np.array([-1.0, 1.0, 3.0])).tolist() == [0.0, 0.5, 1.0]
    assert log.place(10.0) == pytest.approx(0.5)
    svg = c.plane("t", "d", linear, linear, [c.Line(name="one", x=np.array([1.0]), y=np.array([1.0]))])
    dot = parsed(svg).find("circle")
    assert dot is not None
    assert float(dot.get("cx") or 0) == pytest.approx((c.LEFT + c.WIDTH - c.RIGHT) / 2)
    assert float(dot.get("cy") or 0) == pytest.approx((c.TOP + c.HEIGHT - c.BOTTOM) / 2)


@pytest.mark.parametrize(
    ("axis", "some"),
    [
        (c.Axis(label="", low=0.0, high=1.0), [0.0, 0.2, 1.0]),
        (c.Axis(label="", low=-50.0, high=160.0), [-50.0, 0.0, 150.0]),
        (c.Axis(label="", low=0.015, high=1.2, log=True), [0.02, 0.1, 1.0]),
        (c.Axis(label="", low=1.0, high=1e6, log=True), [1.0, 1000.0]),
        (c.Axis(label="", low=0.4, high=0.5, log=True), [0.4, 0.42]),
    ],
)
def test_ticks_are_round_few_and_inside(axis: c.Axis, some: list[float]) -> None:
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 12
    assert min(ticks) >= axis.low - 1e-9
    assert max(ticks) <= axis.high + 1e-9
    for tick in some:
        assert min(abs(t - tick) for t in ticks) < 1e-9
    assert len(set(c._written(ticks))) == len(ticks)


def test_axes_without_values_or_spread_still_span() -> None:
    for values in ([], [np.array([np.nan])], [np.array([2.0])]):
        for log in (False, True):
            axis = c.spanning("x", values, log=log)
            assert axis.high > axis.low
            assert not log or axis.low > 0.0


def test_labels_do_not_overlap_where_there_is_room() -> None:
    axis = c.Axis(label="", low=0.0, high=1.0)
    near = [c.Point(name=f"model-number-{i}", x=0.5 + 0.004 * i, y=0.5 + 0.004 * i) for i in range(5)]
    root = parsed(c.plane("t", "d", axis, axis, [], near))
    boxes = []
    for text in root.iter("text"):
        if text.get("class") == "label":
            x, y = float(text.get("x") or 0), float(text.get("y") or 0)
            boxes.append((x, y - 11, x + len(text.text or "") * c.CHARACTER, y + 2))
    assert len(boxes) == 5
    assert not any(c._overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(b[0] > c.LEFT and b[2] < c.WIDTH for b in boxes)


def test_stacked_bands_fill_the_whole_height() -> None:
    axis = c.Axis(label="t", low=0.0, high=2.0)
    share = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    root = parsed(c.stacked("t", "d", axis, np.array([0.0, 1.0, 2.0]), share, ["a", NASTY], ["s0", "s1"]))
    areas = [e for e in root.iter("path") if "area" in (e.get("class") or "")]
    heights = [[float(v) for v in re.findall(r"[\d.]+ ([\d.]+)", a.get("d") or "")] for a in areas]
    assert min(heights[1]) == pytest.approx(c.TOP)
    assert max(heights[0]) == pytest.approx(c.HEIGHT - c.BOTTOM)


def test_each_line_has_a_colour_of_its_own_and_legends_match() -> None:
    line = c.Line(name="x", x=np.zeros(1), y=np.zeros(1))
    named = c.Line(name="y", x=np.zeros(1), y=np.zeros(1), colour="s0")
    base = c.Line(name="z", x=np.zeros(1), y=np.zeros(1), colour="base")
    found = c.colouring([line, named, base, line])
    assert [colour for colour, _ in found] == ["s1", "s0", "base", "s2"]
    assert len({dash for _, dash in found}) == 4
    html = c.legend([(NASTY, *found[0])])
    assert "<script" not in html
    parsed(html)
