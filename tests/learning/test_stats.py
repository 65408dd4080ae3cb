"""Statistics against hand-computed numbers and scipy."""

import numpy as np
import pytest
from scipy import stats as reference

from robo_rl.stats import bootstrap, cvar, iqm, wilson


def test_iqm_by_hand_and_against_scipy() -> None:
    assert iqm(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5  # one cut from each side
    rng = np.random.default_rng(3)
    for n in (5, 17, 100):
        scores = rng.standard_normal(n)
        assert iqm(scores) == pytest.approx(reference.trim_mean(scores, 0.25))


def test_cvar_is_the_mean_of_the_worst_tenth() -> None:
    assert cvar(np.arange(20.0)) == 0.5
    assert cvar(np.array([4.0, 3.0])) == 3.0  # at least one


@pytest.mark.parametrize(("hits", "n"), [(990, 1000), (1, 10), (0, 20), (20, 20), (500, 1000)])
def test_wilson_against_scipy(hits: int, n: int) -> None:
    expected = reference.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_holds_its_level_where_the_rate_is_high() -> None:
    """99 % of 100 trials: the interval covers the truth in about 95 % of samples, exactly by summation."""
    p, n = 0.99, 100
    covered = sum(reference.binom.pmf(k, n, p) for k in range(n + 1) if wilson(k, n)[0] <= p <= wilson(k, n)[1])
    assert 0.9 < covered < 0.995


def test_bootstrap_interval_of_a_mean_agrees_with_theory() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(400)
    low, high = bootstrap(scores, lambda s: float(np.mean(s)), rng=rng, resamples=2000)
    half = 1.96 * scores.std() / 20.0
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.01)


def test_bootstrap_is_stratified_by_task() -> None:
    """Two tasks with constant scores: resampling within tasks leaves no uncertainty at all."""
    scores = np.array([[0.0, 10.0]] * 6)
    assert bootstrap(scores, lambda s: float(np.mean(s)), rng=np.random.default_rng(0), resamples=50) == (5.0, 5.0)
