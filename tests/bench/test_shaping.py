"""Rewards of papers: every rule by itself, and what policy gradient makes of them on small tables.

Shapes: Q types of question, T turns, R rollouts, A actions or modes.
"""

from itertools import pairwise, product
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.bench.shaping import (
    CostWindow,
    advantages,
    cheapness,
    exact_match,
    group_gradient,
    mixed,
    mode_reward,
    rounds_reward,
    set_reward,
    undecided,
    weighed,
    word_f1,
)
from fairlead.table import Floats

# ------------------------------------------------------------------------------------------------ answers

NAMES = ("big", "small")
GOOD = "<think>a</think><search>big:who?</search><information>x</information><think>b</think><answer>Ada</answer>"


def test_answers_are_compared_in_normal_form() -> None:
    assert exact_match("The  Eiffel Tower.", ["eiffel tower"]) == 1.0
    assert exact_match("Eiffel", ["eiffel tower", "tower"]) == 0.0
    assert word_f1("the big tower", ["Eiffel tower", "pisa"]) == pytest.approx(0.5)
    assert (word_f1("", ["x"]), word_f1("x", []), exact_match("", ["x"])) == (0.0, 0.0, 0.0)


# ------------------------------------------------------------------------------------------------- rounds


@pytest.mark.parametrize(
    "broken",
    [
        GOOD.replace("</think>", "", 1),
        GOOD.replace("<think>a", "<think><search>big:x</search>a"),
        "x" + GOOD,
        GOOD.replace("<think>a</think>", ""),
        "<answer>Ada</answer>",
        GOOD + GOOD,
        GOOD + "x",
        GOOD.replace("<answer>Ada</answer>", ""),
        GOOD.replace("<information>x</information>", ""),
        GOOD.replace("big:who?", "huge:who?"),
        GOOD.replace("big:who?", "who?"),
    ],
)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_each_format_rule_broken_alone_gives_exactly_minus_1(broken: str, alpha: float) -> None:
    assert rounds_reward(GOOD, ["Ada"], names=NAMES, cost_reward=1.0, alpha=alpha) == 1.0
    assert rounds_reward(broken, ["Ada"], names=NAMES, cost_reward=1.0, alpha=alpha) == -1.0


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_right_and_cheap_then_right_and_dear_then_wrong_is_0_then_malformed(alpha: float) -> None:
    def reward(episode: str, cost_reward: float) -> float:
        return rounds_reward(episode, ["ada"], names=NAMES, cost_reward=cost_reward, alpha=alpha)

    wrong = reward(GOOD.replace("Ada", "Bo"), 1.0)
    assert reward(GOOD, 1.0) > reward(GOOD, 0.0) > wrong == 0.0 > reward("Ada", 1.0)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.01, 1.0))
def test_alpha_0_is_the_outcome_and_alpha_1_the_cost_among_right_answers(a: float, b: float, outcome: float) -> None:
    assert weighed(outcome, a, 0.0) == outcome
    assert (weighed(1.0, a, 1.0) > weighed(outcome, b, 1.0)) == (a > b)
    for alpha in (0.0, 0.3, 1.0):
        assert weighed(0.0, a, alpha) == 0.0


def test_f1_as_the_outcome() -> None:
    episode = GOOD.replace("Ada", "Ada Bo")
    assert rounds_reward(episode, ["Ada"], names=NAMES, cost_reward=0.0, alpha=0.0, outcome=word_f1) == pytest.approx(
        2 / 3
    )


def test_window_on_constants_is_one_half() -> None:
    window = CostWindow()
    assert [window.reward(3.0) for _ in range(20)] == [0.5] * 20


def test_window_is_robust_to_one_outlier() -> None:
    costs = np.random.default_rng(0).uniform(1.0, 4.0, 500)
    calm, shaken = CostWindow(), CostWindow()
    shaken.reward(1e9)
    a = np.array([calm.reward(c) for c in costs])
    b = np.array([shaken.reward(c) for c in costs])
    assert np.abs(a - b)[50:].max() < 0.05


@given(st.lists(st.floats(0.0, 1e9), min_size=1, max_size=60), st.integers(1, 20))
def test_window_stays_within_0_and_1_and_forgets(costs: list[float], size: int) -> None:
    window, late = CostWindow(size=size), CostWindow(size=size)
    rewards = [window.reward(c) for c in costs]
    assert all(0.0 <= r <= 1.0 for r in rewards)
    assert [late.reward(c) for c in costs[-size:]][-1] == rewards[-1]


def test_window_takes_the_root_and_the_5th_and_95th_percentile() -> None:
    window = CostWindow()
    for c in range(100):
        window.reward(c * c)
    assert window.reward(50.0 * 50.0) == pytest.approx(1 - (50 - 5) / 90, abs=0.01)
    assert (window.reward(4.0 * 4.0), window.reward(97.0 * 97.0)) == (1.0, 0.0)
    with pytest.raises(ValueError, match="percentiles"):
        CostWindow(low=95.0, high=5.0)


# A tabular stand-in for the router: in each state (type of question, turns so far) it asks small, asks large, or answers; after two turns it must
# answer. What it then gets right, by type and by how often it asked each:

SMALL, LARGE, ANSWER = range(3)
RIGHT: list[dict[tuple[int, int], float]] = [
    {(0, 0): 0.3, (1, 0): 0.85, (0, 1): 0.95, (2, 0): 0.88, (1, 1): 0.95, (0, 2): 0.96},
    {(0, 0): 0.0, (1, 0): 0.3, (0, 1): 0.8, (2, 0): 0.35, (1, 1): 0.82, (0, 2): 0.85},
    {(0, 0): 0.0, (1, 0): 0.1, (0, 1): 0.2, (2, 0): 0.5, (1, 1): 0.7, (0, 2): 0.9},
]
PRICE = (1.0, 9.0)


def asked(path: tuple[int, ...]) -> tuple[int, int]:
    """Count how often a path asked small and large, up to its answer."""
    before = path[: path.index(ANSWER)] if ANSWER in path else path
    return before.count(SMALL), before.count(LARGE)


def brought(q: int, path: tuple[int, ...], alpha: float) -> tuple[float, float, float]:
    """Return the probability of being right, the reward if so, and the cost."""
    n = asked(path)
    cost = n[0] * PRICE[0] + n[1] * PRICE[1]
    return RIGHT[q][n], weighed(1.0, cheapness(sqrt(cost), 0.0, sqrt(2 * PRICE[1])), alpha), cost


PATHS = list(product(range(3), repeat=2))


def best(q: int, alpha: float) -> float:
    return max(p * reward for p, reward, _ in (brought(q, path, alpha) for path in PATHS))


def softmax(logits: Floats) -> Floats:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = e / e.sum(axis=-1, keepdims=True)
    return shares


def learned(alpha: float, *, steps: int = 600, rollouts: int = 96) -> list[tuple[int, ...]]:
    """Return the path per type of question that REINFORCE with a mean baseline comes to."""
    rng = np.random.default_rng(0)
    chosen = []
    for q in range(len(RIGHT)):
        found = [brought(q, path, alpha) for path in PATHS]
        logits_TA = np.zeros((2, 3))
        for _ in range(steps):
            pi_TA = softmax(logits_TA)
            actions_TR = np.stack([rng.choice(3, rollouts, p=pi_A) for pi_A in pi_TA])
            at_R = actions_TR[0] * 3 + actions_TR[1]
            p_R, if_right_R = (np.array([f[k] for f in found])[at_R] for k in (0, 1))
            gain_R = (rng.random(rollouts) < p_R) * if_right_R
            weight_R = gain_R - gain_R.mean()
            # After an answer there is no second turn, and nothing to learn about it.
            for t, takes_part_R in enumerate((np.ones(rollouts), actions_TR[0] != ANSWER)):
                w_R = weight_R * takes_part_R
                logits_TA[t] += 4.0 * (np.bincount(actions_TR[t], w_R, 3) - w_R.sum() * pi_TA[t]) / rollouts
        chosen.append(tuple(int(a) for a in logits_TA.argmax(axis=1)))
    return chosen


ALPHAS = (0.0, 0.3, 0.6, 0.9, 1.0)


@pytest.fixture(scope="module")
def tables() -> dict[float, list[tuple[int, ...]]]:
    return {alpha: learned(alpha) for alpha in ALPHAS}


def test_policy_gradient_finds_the_optimal_table_policy(tables: dict[float, list[tuple[int, ...]]]) -> None:
    for alpha, paths in tables.items():
        for q, path in enumerate(paths):
            p, reward, _ = brought(q, path, alpha)
            assert p * reward >= 0.97 * best(q, alpha), (alpha, q, path)


def test_mean_cost_and_mean_accuracy_do_not_rise_with_alpha(tables: dict[float, list[tuple[int, ...]]]) -> None:
    found = [[brought(q, path, alpha) for q, path in enumerate(paths)] for alpha, paths in tables.items()]
    cost = [sum(f[2] for f in each) for each in found]
    right = [sum(f[0] for f in each) for each in found]
    assert all(later <= sooner for sooner, later in pairwise(cost)), cost
    assert all(later <= sooner + 0.05 for sooner, later in pairwise(right)), right
    assert cost[0] > 2 * cost[-1]


# --------------------------------------------------------------------------------------------------- sets

agents = st.sets(st.sampled_from("abcdefgh"), min_size=1)


@given(agents, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_exact_match_of_sets_is_1(gold: set[str], alpha: float, beta: float) -> None:
    assert set_reward(gold, gold, alpha=alpha, beta=beta) == pytest.approx(1.0)
    assert set_reward(gold, gold, alpha=alpha, beta=beta, whole=True) == pytest.approx(1.0)


@given(agents, st.integers(0, 5), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_superset_by_k(gold: set[str], k: int, alpha: float, beta: float) -> None:
    more = gold | {f"x{i}" for i in range(k)}
    expected = alpha * len(gold) / (len(gold) + k) + (1 - alpha) - beta * k
    assert set_reward(more, gold, alpha=alpha, beta=beta) == pytest.approx(expected)


@given(agents, agents)
def test_disjoint_sets_earn_at_most_0(chosen: set[str], gold: set[str]) -> None:
    assert set_reward({c + "'" for c in chosen}, gold) <= 0.0


def test_empty_and_repeated_names_do_not_crash() -> None:
    assert set_reward([], ["a"]) == 0.0
    assert set_reward(["a", "a"], ["a"]) == 1.0
    assert set_reward(["a"], ["a", "b"]) == pytest.approx(0.75)
    assert set_reward(["a"], ["a", "b"], whole=True) == pytest.approx(0.5)


@given(st.lists(agents, min_size=8, max_size=8))
def test_consistency_filter_keeps_iff_the_modal_share_is_at_most_6_in_10(sets: list[set[str]]) -> None:
    most = max(sum(a == b for b in sets) for a in sets)
    assert undecided(sets) == (most / 8 <= 0.6)
    right = [s == sets[0] for s in sets]
    assert mixed(right) == (sum(right) != 8)
    assert not mixed([False] * 8)


def test_the_size_penalty_drives_the_set_to_one_where_one_agent_dominates() -> None:
    """By group-relative policy gradient over all sets of three agents, of which one is right on nine queries in ten, and each other on one."""
    sets = [tuple(a for a, here in zip("abc", bits, strict=True) if here) for bits in product((0, 1), repeat=3)][1:]

    def learn(beta: float) -> tuple[str, ...]:
        rng = np.random.default_rng(0)
        logits_A = np.zeros(len(sets))
        for _ in range(600):
            gold = [a for a, p in zip("abc", (0.9, 0.1, 0.1), strict=True) if rng.random() < p]
            pi_A = softmax(logits_A)
            actions_R = rng.choice(len(sets), 8, p=pi_A)
            rewards_R = np.array([set_reward(sets[a], gold, alpha=0.0, beta=beta) for a in actions_R])
            logits_A += 0.3 * group_gradient(pi_A, actions_R, rewards_R, np.ones(8, dtype=bool))
        return sets[int(logits_A.argmax())]

    assert learn(beta=0.3) == ("a",)
    assert len(learn(beta=0.0)) > 1, "by recall alone, more is never worse"


# -------------------------------------------------------------------------------------------------- modes

INSTANT, REASONING, AGENTIC = range(3)


def reward(accuracy: float = 1.0, *, mode: int = REASONING, p: float = 0.5, **more: Any) -> float:
    return mode_reward(accuracy, **{"well_formed": True, "instant": mode == INSTANT, "instant_rate": p, **more})


def test_reward_of_modes() -> None:
    assert reward(p=1.0) == 0.0, "p = 1: a heavy mode earns 0"
    assert reward(p=0.0) == 1.0, "p = 0: no penalty"
    assert reward(p=0.5) == 0.75
    for p in (0.0, 0.5, 1.0):
        assert reward(mode=INSTANT, p=p) == 1.0, "instant is never penalised"
        assert reward(p=p, well_formed=False) == reward(mode=INSTANT, p=p, well_formed=False) == 0.0
    assert reward(0.0, p=0.0) == 0.0
    assert reward(p=0.5, easy=0.5) == 1.0
    assert reward(p=0.6, easy=0.5) == pytest.approx(0.64)


@given(st.floats(0.01, 0.99), st.floats(0.5, 4.0), st.floats(0.1, 4.0))
def test_a_larger_alpha_penalises_less(p: float, alpha: float, more: float) -> None:
    assert reward(p=p, alpha=alpha + more) > reward(p=p, alpha=alpha)


@given(st.floats(-1.0, 1.0), st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_when_all_12_rollouts_are_alike_the_gradient_is_exactly_zero(r: float, actions: list[int]) -> None:
    pi_A = np.array([0.2, 0.3, 0.5])
    gradient_A = group_gradient(pi_A, np.array(actions), np.full(12, r), np.ones(12, dtype=bool))
    assert not gradient_A.any()
    assert not advantages([r] * 12).any()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, 1.0), st.booleans()), min_size=2, max_size=12))
def test_masked_choices_get_no_gradient(rollouts: list[tuple[int, float, bool]]) -> None:
    actions_R, rewards_R, learns_R = (np.array(column) for column in zip(*rollouts, strict=True))
    pi_A = np.array([0.2, 0.3, 0.5])
    found_A = group_gradient(pi_A, actions_R, rewards_R, learns_R)
    elsewhere_R = np.where(learns_R, actions_R, (actions_R + 1) % 3)
    assert group_gradient(pi_A, elsewhere_R, rewards_R, learns_R) == pytest.approx(found_A)
    assert not group_gradient(pi_A, actions_R, rewards_R, np.zeros(len(rollouts), dtype=bool)).any()
    by_hand_A = sum(
        a * (np.eye(3)[c] - pi_A) for c, a, m in zip(actions_R, advantages(rewards_R), learns_R, strict=True) if m
    )
    assert found_A * len(rollouts) == pytest.approx(by_hand_A if learns_R.any() else np.zeros(3), abs=1e-9)


# A table of four kinds of query by three modes: how often each is right; and what each costs. Half of the queries are easy.

SUCCESS_QA = np.array([[0.85, 0.95, 0.9], [0.85, 0.95, 0.9], [0.02, 0.9, 0.5], [0.02, 0.2, 0.9]])
COST_A = np.array([1.0, 2.0, 3.0])


def trained(
    success_QA: Floats = SUCCESS_QA,
    *,
    alpha: float = 2.0,
    adaptive: bool = True,
    forced: int = 3,
    start: float = 0.0,
    steps: int = 150,
) -> Floats:
    """Train a softmax router, linear in the kind of query, with `forced` rollouts a mode and three free ones; return its probabilities.

    `start`: the logit of the last mode at first. How often answering at once is right is told by the group's own rollouts of that mode. Forced
    choices count too: masked, as forced prefixes are in the paper, they could not teach the choice of a mode.
    """
    rng = np.random.default_rng(0)
    logits_QA = np.zeros_like(success_QA)
    logits_QA[:, AGENTIC] = start
    for _ in range(steps):
        for q, success_A in enumerate(success_QA):
            pi_A = softmax(logits_QA[q])
            actions_R = np.concatenate([np.repeat(np.arange(3), forced), rng.choice(3, 3, p=pi_A)])
            right_R = (rng.random(len(actions_R)) < success_A[actions_R]).astype(float)
            at_once_R = right_R[actions_R == INSTANT]
            p = float(at_once_R.mean()) if adaptive and len(at_once_R) else 0.0
            rewards_R = np.array(
                [reward(float(r), mode=int(m), p=p, alpha=alpha) for r, m in zip(right_R, actions_R, strict=True)]
            )
            logits_QA[q] += 0.5 * group_gradient(pi_A, actions_R, rewards_R, np.ones(len(actions_R), dtype=bool))
    return softmax(logits_QA)


def cost_of_pass(pi_QA: Floats, success_QA: Floats = SUCCESS_QA) -> tuple[float, float]:
    """Return mean cost over mean success, and mean success."""
    success = float((pi_QA * success_QA).sum(axis=1).mean())
    return float((pi_QA @ COST_A).mean()) / success, success


@pytest.fixture(scope="module")
def router_QA() -> Floats:
    return trained()


def test_cost_of_pass_is_below_each_fixed_mode_and_accuracy_above_reasoning(router_QA: Floats) -> None:
    adaptive, success = cost_of_pass(router_QA)
    fixed = [cost_of_pass(np.tile(row_A, (4, 1))) for row_A in np.eye(3)]
    assert adaptive < min(c for c, _ in fixed)
    assert success >= fixed[REASONING][1] - 0.02


def test_removal_of_the_adaptive_reward_lowers_instant_use(router_QA: Floats) -> None:
    without = trained(adaptive=False)[:, INSTANT].mean()
    assert router_QA[:, INSTANT].mean() > without + 0.3


def test_a_larger_alpha_tolerates_heavy_modes_on_medium_easy_queries() -> None:
    medium = np.array([[0.5, 0.85, 0.2]])
    assert trained(medium, alpha=0.5)[0, INSTANT] > 0.6
    assert trained(medium, alpha=6.0)[0, REASONING] > 0.6


def test_a_mode_of_probability_1e_3_is_learned_with_forced_rollouts_only() -> None:
    rare = np.array([[0.1, 0.1, 0.9]])
    start = float(np.log(2e-3))
    assert softmax(np.array([0.0, 0.0, start]))[2] == pytest.approx(1e-3, rel=0.01)
    assert trained(rare, start=start)[0, AGENTIC] > 0.9
    assert trained(rare, start=start, forced=0)[0, AGENTIC] < 0.05


def test_instant_falls_to_0_where_it_is_never_right_and_accuracy_alone_counts_without_penalty() -> None:
    never = np.array([[0.0, 0.9, 0.2], [0.0, 0.2, 0.9]])
    assert trained(never)[:, INSTANT].max() < 0.05
    free = trained(adaptive=False, steps=500)
    assert free.argmax(axis=1).tolist() == SUCCESS_QA.argmax(axis=1).tolist()


def test_gateway_use_without_training_lies_above_the_line_of_fixed_modes() -> None:
    """Instant iff its estimated success reaches a threshold, else reasoning: at every threshold no worse than a mix of the two at its cost."""
    rng = np.random.default_rng(0)
    p_N = rng.beta(0.6, 0.6, 4000)
    estimated_N = np.clip(p_N + rng.normal(0.0, 0.1, len(p_N)), 0.0, 1.0)
    heavy = 0.9
    for threshold in (0.2, 0.4, 0.6, 0.8):
        instant_N = estimated_N >= threshold
        share = float(instant_N.mean())
        success = float(np.where(instant_N, p_N, heavy).mean())
        mix = share * float(p_N.mean()) + (1.0 - share) * heavy
        assert success > mix + 0.05
