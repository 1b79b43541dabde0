"""Two domains: alike when drawn alike, different when they differ, and p-values that hold."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from stats_cases import claim_fewer_experts
from stats_cases import make_trace as small_trace

import routestats as rs
from routestats.errors import InvalidValueError
from routestats.stats._base import contingency
from routestats.stats._compare_domains import compare, divergence, expert_difference


def make_trace(seed: int, *, shift: bool = False, groups: int = 20, phase: str = "prefill"):  # type: ignore[no-untyped-def]
    """Requests that each have a taste of their own; with `shift`, domain b prefers expert 0."""
    rng = np.random.default_rng(seed)
    experts, requests, domains = [], [], {}
    for g in range(2 * groups):
        taste = rng.dirichlet(np.ones(4) * 3, size=3)
        if shift and g >= groups:
            taste = taste * 0.5 + np.eye(4)[0] * 0.5
        ids = np.stack([rng.choice(4, 50, p=p) for p in taste], axis=1)
        experts.append(np.stack((ids, (ids + 1 + rng.integers(0, 3, ids.shape)) % 4), axis=2))
        requests += [f"r{g}"] * 50
        domains[f"r{g}"] = "a" if g < groups else "b"
    return rs.Trace.from_arrays(
        np.concatenate(experts).astype(np.uint8),
        num_experts=4,
        request_ids=requests,
        domain=domains,
        phase=[phase] * len(requests),
    )


def test_divergences_equal_the_definition() -> None:
    trace = make_trace(0, shift=True)
    found = rs.stats.compare_domains(trace, permutations=99)
    assert found.domains == ("a", "b")
    assert found.tokens == (1000, 1000)
    assert found.groups == (20, 20)
    sides = [rs.count(trace.filter(domain=d), hops=(1,), pairing="any") for d in "ab"]
    expected = contingency.divergence_bits(sides[0].expert, sides[1].expert)
    np.testing.assert_allclose(found.load.bits, expected, rtol=1e-12)
    np.testing.assert_allclose(found.load_share.sum(axis=2), 1.0)
    for i, (src, dst) in enumerate(found.affinity_pairs.tolist()):
        first, second = (side.pair(src, dst) for side in sides)
        rows = contingency.divergence_bits(first, second)
        pooled = (first + second).sum(axis=1)
        assert found.affinity.bits[i] == pytest.approx((rows * pooled).sum() / pooled.sum())
    kinds = found.to_table()["kind"].to_pylist()
    assert [kinds.count(kind) for kind in ("load", "affinity", "expert")] == [3, 2, 3 * 4]
    assert "of 3 layers" in found.summary()


def test_a_difference_is_found_and_its_absence_too() -> None:
    differs = rs.stats.compare_domains(make_trace(1, shift=True), permutations=199)
    assert (differs.load.p_value == 1 / 200).all()
    assert (differs.load.bits > 3 * differs.load.null_mean_bits).all()
    assert (differs.load.q_value >= differs.load.p_value).all()

    # Prompts have tastes, so tokens permuted one by one would call these different; prompts do not.
    smallest = [
        rs.stats.compare_domains(make_trace(seed), hops=(), permutations=99).load.p_value[0]
        for seed in range(2, 22)
    ]
    assert sum(p <= 0.05 for p in smallest) <= 3
    assert sum(p <= 0.5 for p in smallest) >= 5


def test_one_phase_at_a_time_and_wrong_names() -> None:
    trace = make_trace(0, phase="decode")
    assert (
        rs.stats.compare_domains(trace, "b", "a", phase="decode", permutations=9).phase == "decode"
    )
    with pytest.raises(InvalidValueError, match="a: expected at least 2 prompt groups in prefill"):
        rs.stats.compare_domains(trace)
    with pytest.raises(InvalidValueError, match="second: expected one of a, b, got 'c'"):
        rs.stats.compare_domains(trace, "a", "c")
    with pytest.raises(InvalidValueError, match="hops: expected 1 to 2, got 3"):
        rs.stats.compare_domains(trace, hops=(3,), phase="decode")


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace(3, shift=True)
    whole = rs.stats.compare_domains(trace, hops=(1, 2), permutations=50)
    monkeypatch.setattr(compare, "BLOCK_CELLS", 40 * 4 * 3)  # 3 and 1 source experts, 7 labellings
    blocks = rs.stats.compare_domains(trace, hops=(1, 2), permutations=50)
    np.testing.assert_allclose(blocks.affinity.bits, whole.affinity.bits)
    np.testing.assert_allclose(blocks.affinity.null_mean_bits, whole.affinity.null_mean_bits)
    np.testing.assert_array_equal(blocks.affinity.p_value, whole.affinity.p_value)


def null_p_values(sets: int) -> tuple[list[float], list[float]]:
    """p of load and of affinity where both domains draw their prompts alike."""
    rng = np.random.default_rng(7)
    load, affinity = [], []
    for _ in range(sets):
        liking = rng.normal(size=(16, 1, 2, 4))
        keys = rng.gumbel(size=(16, 6, 2, 4)) + liking
        experts = np.argsort(-keys, axis=3)[..., :2].reshape(96, 2, 2).astype(np.uint8)
        requests = np.repeat([f"r{i}" for i in range(16)], 6)
        domains = {f"r{i}": "ab"[i % 2] for i in range(16)}
        trace = rs.Trace.from_arrays(experts, num_experts=4, request_ids=requests, domain=domains)
        found = rs.stats.compare_domains(trace, permutations=99, seed=int(rng.integers(1 << 30)))
        load.append(found.load.p_value[0])
        affinity.append(found.affinity.p_value[0])
    return load, affinity


def test_p_values_are_uniform_where_nothing_differs() -> None:
    from scipy.stats import kstest

    for values in null_p_values(400):
        # They are multiples of 1/100, which adds at most that to the distance from uniform.
        assert kstest(values, "uniform").statistic < 1.63 / np.sqrt(400) + 0.01  # 1 % level
        assert min(values) <= 0.05


def test_adjusted_p_values_are_benjamini_and_hochbergs() -> None:
    from scipy.stats import false_discovery_control

    rng = np.random.default_rng(0)
    observed, null = rng.random(40) ** 0.5, rng.random((40, 199))
    found = divergence.tested([np.append(o, n) for o, n in zip(observed, null, strict=True)])
    p = [(1 + sum(n >= o for n in ns)) / 200 for o, ns in zip(observed, null, strict=True)]
    np.testing.assert_allclose(found.p_value, p)
    np.testing.assert_allclose(found.q_value, false_discovery_control(p, method="bh"))
    # By hand: the least of p * n / rank over the ranks from one's own upwards.
    rank = np.argsort(np.argsort(p, kind="stable"), kind="stable") + 1
    for i in range(40):
        above = [p[j] * 40 / rank[j] for j in range(40) if rank[j] >= rank[i]]
        assert found.q_value[i] == pytest.approx(min(1.0, *above))


def test_expert_differences_equal_the_definition() -> None:
    trace = make_trace(3, shift=True)
    found = rs.stats.compare_domains(trace, hops=(), permutations=99, seed=5)
    experts = found.experts
    share = [
        rs.stats.expert_load(rs.count(trace.filter(domain=d), hops=(), pairing="any")).share
        for d in "ab"
    ]
    np.testing.assert_allclose(experts.difference, share[0] - share[1], atol=1e-14)
    # The same labellings, prompt by prompt.
    requests = np.array(trace.rows["request_id"].to_pylist())
    names = sorted(set(requests), key=lambda name: int(name[1:]))
    sides = np.array([int(name[1:]) >= 20 for name in names])
    by_prompt = np.stack(
        [
            [np.bincount(trace.experts[requests == n, layer].ravel(), minlength=4) for n in names]
            for layer in range(3)
        ]
    )
    labels = compare._labels(sides.astype(np.intp), 99, 5) == 1
    null = np.array(
        [
            [layer[one].sum(0) / layer[one].sum() - layer[~one].sum(0) / layer[~one].sum()]
            for one in labels[1:]
            for layer in by_prompt
        ]
    )
    null = null.reshape(99, 3, 4)
    np.testing.assert_allclose(experts.null_mean_abs, np.abs(null).mean(axis=0))
    size = np.abs(share[0] - share[1]) - 1e-12
    expected = (1 + (np.abs(null) >= size).sum(axis=0)) / 100
    np.testing.assert_array_equal(experts.p_value, expected)
    # Adjusted over all experts of all layers at once.
    from scipy.stats import false_discovery_control

    q = false_discovery_control(expected.ravel(), method="bh").reshape(3, 4)
    np.testing.assert_allclose(experts.q_value, q)
    np.testing.assert_array_equal(experts.beyond(), q <= 0.05)
    assert experts.beyond()[:, 0].all()  # the one that b prefers
    assert (experts.difference[:, 0] < 0).all()


def test_expert_differences_are_written_down() -> None:
    found = rs.stats.compare_domains(make_trace(3, shift=True), permutations=199)
    beyond = found.experts.beyond()
    (line,) = [line for line in found.summary().splitlines() if "experts " in line]
    assert f"{beyond.sum()} of 12 experts beyond chance at q <= 0.05, most expert 0" in line
    rows = [row for row in found.to_table().to_pylist() if row["kind"] == "expert"]
    for row in rows:
        at = row["source"], row["expert"]
        assert row["source"] == row["target"]
        assert row["bits"] is None
        for name in ("difference", "null_mean_abs", "p_value", "q_value"):
            assert row[name] == getattr(found.experts, name)[at]
    assert len({(row["source"], row["expert"]) for row in rows}) == 12
    assert found.to_dict()["experts"]["q_value"] == found.experts.q_value.tolist()
    alike = rs.stats.compare_domains(make_trace(5), permutations=19).experts
    # No p is below 1 / 20, so that q reaches 0.05 for all twelve together or for none.
    fewer = "with 19 permutations, fewer than 12 cannot be told from it"
    assert alike.summary() == f"0 of 12 experts beyond chance at q <= 0.05 ({fewer})"


def test_p_values_of_experts_are_uniform_where_nothing_differs() -> None:
    """Prompts of 100 to 900 tokens that have tastes of their own, in domains that are drawn alike.

    As a check of the check: tokens permuted one by one would call most of them different.
    """
    from scipy.stats import chi2_contingency, kstest

    rng = np.random.default_rng(3)
    sides = np.repeat([0, 1], [10, 14])
    prompts, tokens = [], []
    for _ in range(400):
        sizes = rng.integers(100, 900, len(sides))
        load = rng.multinomial(sizes, rng.dirichlet(np.ones(6), len(sides))).astype(float)
        labels = compare._labels(sides, 199, int(rng.integers(1 << 30)))
        p = expert_difference.permuted_differences(labels @ load, load.sum(axis=0))[2]
        prompts.append(p[rng.integers(6)])
        tokens.append(chi2_contingency([load[sides == 0].sum(0), load[sides == 1].sum(0)])[1])
    # They are multiples of 1/200, which adds at most that to the distance from uniform.
    assert kstest(prompts, "uniform").statistic < 1.63 / np.sqrt(400) + 0.005  # 1 % level
    assert min(prompts) <= 0.02
    assert np.mean(np.array(tokens) <= 0.05) > 0.9


def test_experts_that_differ_are_found_among_thousands_and_few_others() -> None:
    """Of 2,000 experts, a tenth have twice the load in one domain or in the other."""
    rng = np.random.default_rng(0)
    sides = np.repeat([0, 1], 50)
    share = np.ones((100, 2000))
    share[:50, :100] = share[50:, 100:200] = 2
    taste = rng.gamma(5.0, 1 / 5, share.shape) * share
    load = rng.poisson(40 * taste).astype(float)
    labels = compare._labels(sides, 999, 0)
    p = expert_difference.permuted_differences(labels @ load, load.sum(axis=0))[2]
    found = expert_difference.adjusted(p) <= 0.05
    assert found[:200].mean() > 0.9
    assert found[200:].sum() < 0.1 * found.sum()


def test_what_has_no_divergence_has_no_p_and_a_permutation_without_one_counts_against() -> None:
    found = divergence.tested(
        [np.array([np.nan, 0.1, 0.2]), np.array([0.5, np.nan, 0.1]), np.array([0.5, 0.4, 0.1])]
    )
    np.testing.assert_array_equal(found.p_value, [np.nan, 2 / 3, 1 / 3])
    np.testing.assert_array_equal(found.q_value, [np.nan, 2 / 3, 2 / 3])
    np.testing.assert_allclose(found.null_mean_bits, [0.15, 0.1, 0.25])


def test_domains_without_a_source_expert_in_common_have_no_affinity_to_compare() -> None:
    experts = np.array([[[0], [0]], [[1], [1]]] * 10, np.uint8)
    requests = [f"r{i}" for i in range(20)]
    domains = {f"r{i}": "ab"[i % 2] for i in range(20)}
    trace = rs.Trace.from_arrays(experts, num_experts=2, request_ids=requests, domain=domains)
    found = rs.stats.compare_domains(trace, permutations=99)
    assert found.load.bits.tolist() == [1.0, 1.0]
    assert np.isnan(found.affinity.p_value).all()
    assert "divergence not known" in str(found)


def test_groups_and_domains_that_are_too_few() -> None:
    trace, rows = small_trace(0)
    one = [row.request for row in rows if row.domain == "a" or row.group == "b0"]
    with pytest.raises(InvalidValueError, match="b: expected at least 2 prompt groups in prefill"):
        rs.stats.compare_domains(trace.filter(requests=one))
    only_a = [row.request for row in rows if row.domain == "a"]
    with pytest.raises(InvalidValueError, match="b: expected at least 2 .* in prefill, got 0"):
        rs.stats.compare_domains(trace.filter(requests=only_a))
    with pytest.raises(InvalidValueError, match="first, second: .* the trace's 1 domains"):
        rs.stats.compare_domains(trace.filter(domain="a"))
    with pytest.raises(InvalidValueError, match=r"= 4, but num_experts is 4"):
        rs.stats.compare_domains(claim_fewer_experts(trace, 4))
    with pytest.raises(InvalidValueError, match="permutations: expected at least 1, got 0"):
        rs.stats.compare_domains(trace, permutations=0)


def test_products_that_have_threads_of_their_own_run_on_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four threads that each call a BLAS of four would be sixteen."""
    seen = []

    class Watched(np.ndarray):
        def __array_ufunc__(
            self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any
        ) -> Any:
            if ufunc is np.matmul:
                seen.append(threading.current_thread())
            plain = [np.asarray(part) if isinstance(part, Watched) else part for part in inputs]
            return getattr(ufunc, method)(*plain, **options)

    labels = compare._labels
    monkeypatch.setattr(compare, "_labels", lambda *given: labels(*given).view(Watched))
    rs.stats.compare_domains(make_trace(0), permutations=19)
    assert len(seen) > 3
    assert set(seen) == {threading.main_thread()}
