"""Units of resampling, runs of positions, and the coverage of shares over them."""

from __future__ import annotations

import numpy as np
import pytest
from stats_cases import make_trace, trace_of

import routestats as rs
from routestats.stats._base.estimate import resampling_weights
from routestats.stats._base.units import Runs, Units, share_estimate


@pytest.mark.parametrize("seed", range(4))
def test_runs_are_consecutive_positions_of_one_request_and_hold_every_row(seed: int) -> None:
    trace, _ = make_trace(seed)
    units = Units.of(trace)
    runs = Runs.of(trace, units)
    assert sorted(runs.rows.tolist()) == list(range(len(trace)))
    assert (np.diff(runs.units) >= 0).all()
    request, position = (trace.rows[name].to_pylist() for name in ("request_id", "position"))
    ends = set()
    for first, last, unit in zip(runs.starts[:-1], runs.starts[1:], runs.units, strict=True):
        rows = runs.rows[first:last]
        assert len({request[row] for row in rows}) == 1
        assert {units.of_row[row] for row in rows} == {unit}
        at = [position[row] for row in rows]
        assert at == list(range(at[0], at[0] + len(at)))
        ends |= {(request[rows[0]], at[0] - 1), (request[rows[0]], at[-1] + 1)}
    # No run could have gone on.
    assert not ends & set(zip(request, position, strict=True))


def test_a_prompt_in_two_domains_is_a_unit_in_each() -> None:
    _, rows = make_trace(0, samples=1)
    same = trace_of([r for r in rows if r.group in ("a0", "b0")], 5)
    units = Units.of(same)
    assert units.domain.tolist() == [0, 1]
    shared = rs.Trace.from_arrays(
        same.experts,
        num_experts=5,
        request_ids=same.rows["request_id"].to_pylist(),
        domain={"a0-0": "a", "b0-0": "b"},
        groups={"a0-0": "one prompt", "b0-0": "one prompt"},
    )
    assert Units.of(shared).domain.tolist() == [0, 1]


def test_share_intervals_cover_what_they_state() -> None:
    """500 test sets of 164 prompts of unequal length, correlation 0.3 within a prompt."""
    rng = np.random.default_rng(2)
    truth, spread = 0.4, (1 - 0.3) / 0.3  # of a beta distribution with that correlation
    covered = 0
    for simulation in range(500):
        level = rng.beta(truth * spread, (1 - truth) * spread, 164)
        tokens = rng.integers(20, 120, 164)
        hits = rng.binomial(tokens, level)
        weights = resampling_weights(np.zeros(164, int), resamples=300, seed=simulation)
        estimate = share_estimate(hits, tokens, weights, 0.95)
        covered += bool(estimate.low <= truth <= estimate.high)
    assert 0.92 <= covered / 500 <= 0.98
