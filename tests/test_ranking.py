"""Ranks out of ranks, and what a minority of false ones can do to them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.ranking import aggregate, by_client, means, positions, reassigned
from fairlead.types import Feedback

ITEMS = "abcde"
permutation = st.permutations(list(ITEMS))


def mallows(items: Sequence[str], phi: float, rng: np.random.Generator) -> list[str]:
    """Draw a ranking by repeated insertion: `phi` 0 is the reference, 1 any."""
    out: list[str] = []
    for i, item in enumerate(items):
        weight = phi ** np.arange(i, -1, -1.0)
        out.insert(int(rng.choice(i + 1, p=weight / weight.sum())), item)
    return out


@given(st.lists(permutation, min_size=1, max_size=6), st.randoms())
def test_a_permutation_whatever_the_order_of_clients(rankings: list[list[str]], shuffle: object) -> None:
    votes = {f"c{i}": r for i, r in enumerate(rankings)}
    found = aggregate(votes)
    assert sorted(name for name, _ in found) == list(ITEMS)
    turned = list(votes.items())
    shuffle.shuffle(turned)  # type: ignore[attr-defined]
    assert aggregate(dict(turned)) == found
    if len(rankings) == 1:
        assert [name for name, _ in found] == rankings[0]


def test_ties_go_by_name() -> None:
    assert [n for n, _ in aggregate({"x": ["b", "a"], "y": ["a", "b"]})] == ["a", "b"]
    assert aggregate({"x": {"b": 0.5, "a": 0.5}}) == [("a", 0.5), ("b", 0.5)]


@given(st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 9), min_size=1), st.floats(0.01, 1e6))
def test_the_scale_of_scores_does_not_matter(scores: dict[str, int], scale: float) -> None:
    assert positions({k: scale * v for k, v in scores.items()}, ITEMS) == positions(
        {k: float(v) for k, v in scores.items()}, ITEMS
    )


def test_what_is_named_twice_counts_once_and_what_is_left_out_stands_in_the_middle() -> None:
    assert positions(["b", "b", "a", "b", "zebra", "c", "d", "e"], ITEMS) == positions(["b", "a", "c", "d", "e"], ITEMS)
    assert positions(["d", "b"], ITEMS) == {"a": 2.0, "b": 2.5, "c": 2.0, "d": 1.5, "e": 2.0}
    assert positions([], ITEMS) == dict.fromkeys(ITEMS, 2.0)
    # Naming more than there is moves nothing further.
    assert all(0.0 <= p <= 4.0 for p in positions([*"edcba", *(f"x{i}" for i in range(1000))], ITEMS).values())


@given(st.lists(permutation, min_size=3, max_size=8), st.data())
@settings(max_examples=60)
def test_attackers_move_a_mean_position_by_their_share_of_the_range_at_most(
    honest: list[list[str]], data: st.DataObject
) -> None:
    """f (M - 1) / n against the same clients all honest; so a wider gap than twice that cannot be swapped."""
    n, f = len(honest), data.draw(st.integers(1, len(honest) - 1))
    false = [data.draw(permutation) for _ in range(f)]
    votes = {f"c{i}": r for i, r in enumerate(honest)}
    before, after = dict(aggregate(votes)), dict(aggregate(votes | {f"c{i}": r for i, r in enumerate(false)}))
    bound = f * (len(ITEMS) - 1) / n
    for name in ITEMS:
        assert abs(after[name] - before[name]) <= bound + 1e-9
    for a, b in itertools.permutations(ITEMS, 2):
        if before[b] - before[a] > 2.0 * bound + 1e-9:
            assert after[a] < after[b]


def test_the_bound_is_met_and_not_passed_by_any_attack_of_one_client() -> None:
    votes: dict[str, Sequence[str]] = {"c0": "abcd", "c1": "abdc", "c2": "bacd"}
    before = dict(aggregate(votes))
    moved = [
        abs(dict(aggregate({**votes, "c0": false}))[name] - before[name])
        for false in itertools.permutations("abcd")
        for name in "abcd"
    ]
    assert max(moved) == pytest.approx(1 * 3 / 3)


def test_equal_honest_rankings_stand_while_the_attackers_are_few() -> None:
    """Of n clients that put a right before b, f attackers swap them only if f (M - 1) reaches the gap of 1 times the n honest ones."""
    for honest, f in itertools.product((5, 9, 20), (1, 2, 3, 4)):
        votes: dict[str, Sequence[str]] = {f"h{i}": ITEMS for i in range(honest)}
        votes |= {f"x{i}": ITEMS[::-1] for i in range(f)}
        if f * (len(ITEMS) - 1) < honest:
            assert "".join(n for n, _ in aggregate(votes)) == ITEMS


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_reversed_rankings_of_a_minority_keep_the_first(share: float) -> None:
    """200 clients, 10 targets, Mallows noise 0.5: the best stays first in each of 20 draws (expected of 99.9% of them: the honest gap to the
    second is three standard errors wide). With 50 clients it is lost in some. Averaging scores fails with one attacker."""
    items = [f"t{i}" for i in range(10)]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        clients: dict[str, list[str]] = {f"c{i}": mallows(items, 0.5, rng) for i in range(200)}
        true = [n for n, _ in aggregate(clients)]
        clients |= {f"c{i}": true[::-1] for i in range(int(200 * share))}
        assert aggregate(clients)[0][0] == "t0"
        assert aggregate(clients, trim=share)[0][0] == "t0"
        scores = {c: {n: -float(p) for n, p in positions(r, items).items()} for c, r in clients.items()}
        scores["c0"] = {"t9": 1e6}
        mean = {n: sum(s.get(n, 0.0) for s in scores.values()) / len(scores) for n in items}
        assert max(mean, key=mean.__getitem__) == "t9", "one client with scores without bounds has it all"
        assert aggregate(scores)[0][0] == "t0"


def test_trimming_leaves_out_the_extremes_and_says_what_it_takes() -> None:
    votes: dict[str, Sequence[str]] = {**{f"c{i}": "abc" for i in range(8)}, "x": "cab", "y": "cba"}
    assert dict(aggregate(votes, trim=0.2)) == {"a": 0.0, "b": 1.0, "c": 2.0}
    with pytest.raises(ValueError, match="trim"):
        aggregate(votes, trim=0.5)


def test_scores_are_handed_out_along_the_order() -> None:
    assert reassigned(["b", "a", "x"], {"a": 0.9, "b": 0.4}) == {"b": 0.9, "a": 0.4}


def test_a_client_is_a_key_where_there_are_keys() -> None:
    """However many names and however much traffic a key has, it is one vote."""
    judged = [(Feedback(trace_id="1", value=v, source=s, by=k), t) for k, s, v, t in (
        ("shop", "u1", 1.0, "a"), ("shop", "u2", 0.0, "a"), ("shop", "u2", 1.0, "b"), ("", "tests", 0.25, "b"),
    )]  # fmt: skip
    assert by_client(judged) == {"shop": {"a": 0.5, "b": 1.0}, "tests": {"b": 0.25}}


def test_the_mean_value_is_not_what_one_loud_client_says() -> None:
    clients = {f"c{i}": {"a": 0.5, "b": 0.3} for i in range(9)} | {"loud": {"a": 1.0, "b": 1.0}}
    assert means(clients, trim=0.2) == pytest.approx({"a": 0.5, "b": 0.3})
    assert means(clients)["a"] == pytest.approx(0.55), "one client of ten, however often it speaks"
