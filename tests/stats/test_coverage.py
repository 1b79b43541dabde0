"""Statistics on simulated traces whose truth is known: coverage, nulls, Markov chains."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chisquare

import routestats as rs
from routestats.stats._base.estimate import percentile_interval, resampling_weights
from simulated_groups import Hits, TwoLayers, chain

Floats = npt.NDArray[np.float64]


def test_simulated_tokens_of_a_group_correlate_as_they_say() -> None:
    """One-way variance components of the indicator of one cell, over many groups."""
    rng = np.random.default_rng(0)
    hits, tokens = Hits(0.4, groups=20_000).draw(rng)
    pairs = tokens * (tokens - 1)
    both = (hits * (hits - 1)).sum() / pairs.sum()
    assert (both - 0.4**2) / (0.4 * 0.6) == pytest.approx(0.3, abs=0.02)
    assert hits.sum() / tokens.sum() == pytest.approx(0.4, abs=0.01)
    longer = Hits(0.4, groups=200_000, longer_if_hard=True)
    hits, tokens = longer.draw(rng)
    assert hits.sum() / tokens.sum() == pytest.approx(longer.truth, abs=0.005)
    assert longer.truth < 0.36

    two = TwoLayers(4, 0.5, groups=20_000)
    trace = two.draw(rng)
    cell = (trace.experts[:, :, 0] == 1).all(axis=1)
    share = two.table[1, 1]
    assert cell.mean() == pytest.approx(share, abs=0.005)
    hits, tokens = np.bincount(trace.row_groups(), cell), np.bincount(trace.row_groups())
    both = (hits * (hits - 1)).sum() / (tokens * (tokens - 1)).sum()
    assert (both - share**2) / (share * (1 - share)) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("design", [Hits(0.45), Hits(0.7, longer_if_hard=True)], ids=str)
def test_bootstrap_of_group_sums_covers(design: Hits) -> None:
    """Nominal 95 % of a share over tokens: 92 to 98 % of 500 simulations."""
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(500):
        hits, tokens = design.draw(rng)
        weights = resampling_weights(np.zeros(164, np.int32), resamples=400, seed=seed)
        assert weights is not None
        samples = ((weights @ hits) / (weights @ tokens))[:, None]
        share = np.array([hits.sum() / tokens.sum()])
        _, low, high = percentile_interval(share, samples, 0.95)
        covered += bool(low[0] <= design.truth <= high[0])
    assert 460 <= covered <= 490


@pytest.mark.parametrize("design", [TwoLayers(4, 0.5), TwoLayers(8, 0.3)], ids=str)
def test_jackknife_of_information_covers(design: TwoLayers) -> None:
    """The same for information; without the bias taken off, 8 experts would be far short."""
    rng = np.random.default_rng(2)
    covered = plain = 0
    for _ in range(500):
        found = rs.stats.information(design.draw(rng), null_draws=0)
        value, low, high = (part[0] for part in found.mean_by_hop)
        covered += bool(low <= design.truth_bits <= high)
        plain += bool(abs(value - design.truth_bits) <= (high - low) / 2)
    assert 460 <= covered <= 490
    if design.experts == 8:
        assert plain < 400


def traces(kind: str, count: int, *, tokens: int = 600, experts: int = 4) -> list[rs.Trace]:
    """Traces whose 3 layers are independent but for the request's, or the token id's, own load."""
    rng = np.random.default_rng(3)
    made = []
    for _ in range(count):
        request, token = rng.integers(0, 12, tokens), rng.integers(0, 25, tokens)
        load = np.ones((1, experts))
        if kind == "request":
            load = rng.gamma(0.7, size=(12, experts))[request]
        if kind == "token":
            load = rng.gamma(0.7, size=(25, experts))[token]
        limits = np.cumsum(load / load.sum(axis=1, keepdims=True), axis=1)[:, None, :-1]
        ids = (rng.random((tokens, 3, 1)) >= limits).sum(axis=2)[:, :, None]
        made.append(
            rs.Trace.from_arrays(ids, num_experts=experts, request_ids=request, token_ids=token)
        )
    return made


@pytest.mark.parametrize(
    ("kind", "explains"),
    [("nothing", ("request", "token")), ("request", ("request",)), ("token", ("token",))],
)
def test_a_null_explains_what_it_keeps_and_no_more(kind: str, explains: tuple[str, ...]) -> None:
    """Over 100 traces: no excess beyond its error and p uniform, else excess and p the least."""
    found = [
        rs.stats.information(trace, hops="all", null_draws=19, seed=seed)
        for seed, trace in enumerate(traces(kind, 100))
    ]
    for null in ("request", "token"):
        excess = np.array([f.mean_by_hop.value - getattr(f, f"{null}_null_by_hop") for f in found])
        p = np.array([getattr(f, f"{null}_p_by_hop") for f in found])
        error = excess.std(axis=0, ddof=1) / 10
        if null in explains:
            assert (np.abs(excess.mean(axis=0)) < 2.5 * error).all()
            for hop in p.T:
                # p is one of 1/20, 2/20, ..., 1: five classes of four.
                seen = np.bincount(np.rint(hop * 20).astype(int) - 1, minlength=20)
                assert chisquare(seen.reshape(5, 4).sum(axis=1)).pvalue > 0.005
        else:
            assert (excess.mean(axis=0) > 20 * error).all()
            assert (p == 1 / 20).mean() > 0.97


def analytic(transitions: Floats, start: Floats) -> Callable[[int, int], tuple[Floats, float]]:
    """Transition matrix and information in bits from one layer to a later one."""
    marginals = [start]
    for matrix in transitions:
        marginals.append(marginals[-1] @ matrix)

    def between(src: int, dst: int) -> tuple[Floats, float]:
        power: Floats = np.linalg.multi_dot([np.eye(len(start)), *transitions[src:dst]])
        joint = marginals[src][:, None] * power
        apart = np.outer(marginals[src], marginals[dst])
        return power, float((joint * np.log2(joint / apart)).sum())

    return between


def test_a_markov_chain_is_recovered() -> None:
    """Affinity is the transition matrix, over longer hops a product; information follows."""
    rng = np.random.default_rng(4)
    experts, layers, tokens = 5, 6, 40_000
    transitions = 0.5 * np.eye(experts) + 0.5 * rng.dirichlet(np.ones(experts), (5, experts))
    start = rng.dirichlet(np.full(experts, 5.0))
    between = analytic(transitions, start)
    trace = rs.Trace.from_arrays(
        chain(transitions, start, tokens, rng),
        num_experts=experts,
        request_ids=np.arange(tokens) // 100,
    )
    counts = rs.count(trace, pairing="top1")
    found = rs.stats.information(trace, hops="all", null_draws=2)
    inside = []
    for src, dst in itertools.combinations(range(layers), 2):
        power, bits = between(src, dst)
        affinity = rs.stats.affinity(counts, src, dst)
        error = np.sqrt(power * (1 - power) / affinity.source_tokens[:, None])
        assert (np.abs(affinity.matrix - power) < 4.5 * error).all()
        value, low, high = (part[src, dst] for part in found.mi_bits)
        inside.append(low <= bits <= high)
        assert abs(value - bits) < 2 * (high - low)
    assert sum(inside) >= 13  # of 15, at 95 % each

    # Data processing: nothing on the way to a later layer can add to what the first one tells.
    value = found.mi_bits.value
    slack = found.mi_bits.high - found.mi_bits.low
    for first, middle, last in itertools.combinations(range(layers), 3):
        assert value[first, last] < value[first, middle] + slack[first, middle]
        assert value[first, last] < value[middle, last] + slack[middle, last]
    assert (np.diff(found.mean_by_hop.value) < 0).all()


def test_data_processing_holds_on_the_chain_by_the_tables_alone() -> None:
    """With exact probabilities as counts the inequality has no slack at all."""
    from routestats.stats._base import contingency

    rng = np.random.default_rng(5)
    transitions = rng.dirichlet(np.ones(4), (4, 4))
    start = rng.dirichlet(np.ones(4))
    between = analytic(transitions, start)
    bits = {pair: between(*pair)[1] for pair in itertools.combinations(range(5), 2)}
    for first, middle, last in itertools.combinations(range(5), 3):
        assert bits[first, last] <= min(bits[first, middle], bits[middle, last]) + 1e-12
    joint = start[:, None] * transitions[0]
    assert contingency.mutual_information_bits(joint) == pytest.approx(bits[0, 1])
