"""The bootstrap: what it draws, when it stays silent, and how often it covers the truth."""

from __future__ import annotations

import numpy as np
import pytest

from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats._base.estimate import percentile_interval, resampling_weights


def test_each_stratum_keeps_its_number_of_groups() -> None:
    strata = np.array([0, 1, 0, 1, 1, 0, 0])
    weights = resampling_weights(strata, resamples=50, seed=3)
    assert weights is not None
    assert weights.shape == (50, 7)
    assert (weights[:, strata == 0].sum(axis=1) == 4).all()
    assert (weights[:, strata == 1].sum(axis=1) == 3).all()
    assert weights.std(axis=0).min() > 0


def test_the_seed_decides() -> None:
    strata = np.zeros(20, dtype=np.int32)
    first, again, other = (resampling_weights(strata, resamples=9, seed=s) for s in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("strata", [[], [0], [0, 0, 1]])
def test_no_interval_from_a_domain_of_one_group(strata: list[int]) -> None:
    assert resampling_weights(np.array(strata, dtype=np.int32), resamples=9, seed=0) is None
    estimate = percentile_interval(np.array([0.5]), None, 0.95)
    assert np.isnan(estimate.low[0])
    assert np.isnan(estimate.high[0])


def test_wrong_arguments() -> None:
    strata = np.zeros(4, dtype=np.int32)
    with pytest.raises(InvalidValueError, match="bootstrap: expected at least 0, got -1"):
        resampling_weights(strata, resamples=-1, seed=0)
    with pytest.raises(InvalidTypeError, match=r"bootstrap: expected an integer, got 1\.5"):
        resampling_weights(strata, resamples=1.5, seed=0)  # type: ignore[arg-type]


def coverage(simulations: int, *, by_group: bool) -> float:
    """Share of simulated test sets whose 95 % interval holds the true accuracy.

    Two domains of 30 prompts; prompts differ in difficulty (beta-distributed), so that the 50
    tokens of one are alike. With `by_group` off, tokens are resampled as if independent.
    """
    rng = np.random.default_rng(11)
    truth = 0.5 * (2 / 5 + 3 / 4)
    covered = 0
    for simulation in range(simulations):
        difficulty = np.concatenate([rng.beta(2, 3, size=30), rng.beta(3, 1, size=30)])
        hits = rng.binomial(50, difficulty).astype(np.float64)
        strata = np.repeat([0, 1], 30)
        if not by_group:
            tokens = np.arange(50) < hits[:, None]
            hits, strata = tokens.ravel().astype(np.float64), np.repeat(strata, 50)
        weights = resampling_weights(strata, resamples=200, seed=simulation)
        assert weights is not None
        size = 50 if by_group else 1
        estimate = percentile_interval(
            np.array(hits.mean() / size), weights @ hits / (weights.sum(axis=1) * size), 0.95
        )
        covered += bool(estimate.low <= truth <= estimate.high)
    return covered / simulations


def test_intervals_by_group_cover_and_intervals_by_token_would_not() -> None:
    # Three standard errors of 400 simulations, less the percentile bootstrap's known shortfall
    # with few groups.
    assert 0.90 <= coverage(400, by_group=True) <= 0.985
    # Each of these resamples 3,000 tokens; 100 tell 0.6 from 0.9.
    assert coverage(100, by_group=False) < 0.6
