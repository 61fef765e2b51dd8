"""Free energy: what it does not depend on, alignment, what is missing, what it is worth and when nothing."""

from math import inf, nan
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.plans.energy import aligned, free_energy

LOGPROBS = st.lists(st.floats(-20.0, 0.0), min_size=1, max_size=30)
WEIGHT = st.floats(0.0, 5.0)


def energy(logprobs: list[float], weight: float = 1.0, characters: int | None = None) -> float:
    found = free_energy(logprobs, weight=weight, characters=characters)
    assert found is not None
    return found


@given(LOGPROBS, WEIGHT)
def test_it_is_the_formula(logprobs: list[float], weight: float) -> None:
    assert energy(logprobs, weight) == pytest.approx(-np.mean(logprobs) + weight * np.var(logprobs), abs=1e-9)


@given(LOGPROBS, WEIGHT, st.floats(-5.0, 5.0))
def test_a_constant_added_shifts_the_first_term_only(logprobs: list[float], weight: float, constant: float) -> None:
    shifted = energy([p + constant for p in logprobs], weight)
    assert shifted == pytest.approx(energy(logprobs, weight) - constant, abs=1e-9)


@given(LOGPROBS, WEIGHT, st.randoms())
def test_the_order_of_tokens_does_not_matter(logprobs: list[float], weight: float, random: Random) -> None:
    mixed = random.sample(logprobs, len(logprobs))
    assert energy(mixed, weight) == energy(logprobs, weight), "to the last bit"


@given(LOGPROBS, WEIGHT, st.integers(2, 4))
def test_a_sequence_repeated_has_the_same_energy(logprobs: list[float], weight: float, times: int) -> None:
    assert energy(logprobs * times, weight) == pytest.approx(energy(logprobs, weight), abs=1e-9)
    whole = energy(logprobs * times, weight, characters=12 * times)
    assert whole == pytest.approx(energy(logprobs, weight, characters=12), abs=1e-9)


@given(LOGPROBS)
def test_weight_0_is_mean_surprisal(logprobs: list[float]) -> None:
    assert energy(logprobs, 0.0) == pytest.approx(-sum(logprobs) / len(logprobs), abs=1e-9)


@given(st.floats(-20.0, 0.0), WEIGHT)
def test_a_single_token_has_no_variance(logprob: float, weight: float) -> None:
    assert energy([logprob], weight) == -logprob


def test_erratic_streams_are_penalised() -> None:
    assert energy([-1.0, -1.0, -1.0]) < energy([0.0, 0.0, -3.0])
    assert energy([-1.0, -1.0, -1.0], 0.0) == energy([0.0, 0.0, -3.0], 0.0)


def test_per_character_one_text_in_finer_tokens_has_the_same_surprisal() -> None:
    """Eight characters at two bits in all, by a tokenizer of two tokens and one of four."""
    assert energy([-0.5, -0.5], characters=8) == energy([-0.25] * 4, characters=8)
    assert energy([-0.5, -0.5]) != energy([-0.25] * 4)


@pytest.mark.parametrize(
    "logprobs", [None, (), (-inf,), (-1.0, -inf), (nan, -1.0), (-1e200, 0.0), (-1.7e308, -1.7e308), (inf, -inf)]
)
def test_missing_log_probabilities_are_none_and_never_0(logprobs: tuple[float, ...] | None) -> None:
    assert free_energy(logprobs) is None


def test_without_characters_there_is_no_energy_per_character() -> None:
    assert free_energy((-1.0,), characters=0) is None


@given(st.floats(0.0, 9.0), st.floats(-5.0, 5.0), st.floats(0.1, 3.0), st.floats(0.1, 9.0), st.floats(-9.0, 9.0))
def test_alignment_takes_out_an_affine_map(value: float, mean: float, sd: float, slope: float, shift: float) -> None:
    mapped = aligned(slope * value + shift, slope * mean + shift, slope * sd)
    assert mapped == pytest.approx(aligned(value, mean, sd), abs=1e-6)


def test_a_target_whose_energies_never_differed_is_typical() -> None:
    assert aligned(7.0, 2.0, 0.0) == 0.0
    rounded = float(np.std([0.1 + 0.2, 0.3]))
    assert rounded > 0.0
    assert aligned(0.5, 0.3, rounded) == 0.0, "what rounding leaves is no spread"


def picked(rho: float, seed: int, queries: int = 3000, candidates: int = 5) -> tuple[float, float, float]:
    """Share of right answers by least energy, by chance, by the oracle; correctness and surprisal correlate by `rho`."""
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_normal((2, queries, candidates))
    right = shared < 0.0
    # A cut normal correlates with its cut by 0.8: 2 phi(0).
    noise = own * np.sqrt(1.0 - (rho / 0.798) ** 2)
    surprisal = np.exp(0.5 * (rho / 0.798 * shared + noise))
    least = [
        min(range(candidates), key=lambda c: energy([-surprisal[q, c] * 0.9, -surprisal[q, c] * 1.1]))
        for q in range(queries)
    ]
    chosen = right[np.arange(queries), least].mean()
    return float(chosen), float(right.mean()), float(right.any(axis=1).mean())


def test_with_rho_a_half_it_beats_chance_and_stays_under_the_oracle() -> None:
    chosen, chance, oracle = picked(0.5, seed=1)
    assert chosen > chance + 0.15  # 3,000 queries: a standard error of 0.01
    assert chosen <= oracle


def test_the_honest_null_with_rho_0_it_is_chance() -> None:
    chosen, chance, _ = picked(0.0, seed=2)
    assert chosen == pytest.approx(chance, abs=0.03)
