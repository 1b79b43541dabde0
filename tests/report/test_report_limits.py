"""The report of a model with many experts: what it restricts itself to, and that it says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.report import analyse_run, summary, write_report
from routestats.report._limits import affinity_pairs, null_draws, partners_listed
from routestats.report._registry import restrictions, tables
from routestats.shape import RouteShape
from routestats.stats._base import contingency

LAYERS, EXPERTS = 7, 64


def trace_of_many_experts() -> rs.Trace:
    """Two domains of four prompts with 160 tokens each."""
    rng = np.random.default_rng(0)
    tokens = 2 * 4 * 160
    chosen = rng.random((tokens, LAYERS, EXPERTS)).argsort(axis=2)[:, :, :2]
    request = np.arange(tokens) // 160
    return rs.Trace.from_arrays(
        chosen.astype(np.uint8),
        num_experts=EXPERTS,
        request_ids=[f"r{number}" for number in request],
        positions=np.arange(tokens) % 160,
        token_ids=rng.integers(0, 9, tokens),
        phase=np.where(np.arange(tokens) % 160 < 80, "prefill", "decode").tolist(),
        domain={f"r{number}": "ab"[number // 4] for number in range(8)},
        ordered=True,
    )


def test_few_experts_are_not_restricted() -> None:
    shape = RouteShape(32, 8, 2)
    assert affinity_pairs(shape) == [(layer, layer + 1) for layer in range(31)]
    assert (null_draws(shape), partners_listed(shape)) == (99, 8)
    assert affinity_pairs(RouteShape(1, 8, 2)) == []


def test_pairs_are_spread_from_the_first_to_the_last() -> None:
    assert affinity_pairs(RouteShape(58, 256, 8)) == [(0, 1), (19, 20), (37, 38), (56, 57)]
    assert affinity_pairs(RouteShape(4, 256, 8)) == [(0, 1), (1, 2), (2, 3)]


def test_what_is_not_there_is_not_restricted() -> None:
    whole = trace_of_many_experts()
    few = rs.Trace.from_arrays(
        whole.experts[:, :, :1] % 8,
        num_experts=8,
        request_ids=whole.rows["request_id"].to_pylist(),
        positions=whole.rows["position"].to_numpy(),
        token_ids=whole.rows["token_id"].to_numpy(),
        ordered=True,
    )
    assert restrictions(analyse_run(few)) == []
    one_layer = rs.Trace.from_arrays(
        whole.experts[:, :1, :1],
        num_experts=EXPERTS,
        request_ids=whole.rows["request_id"].to_pylist(),
        positions=whole.rows["position"].to_numpy(),
        token_ids=whole.rows["token_id"].to_numpy(),
        ordered=True,
    )
    assert restrictions(analyse_run(one_layer)) == []


def test_the_report_says_what_it_restricts_itself_to(tmp_path: Path) -> None:
    analysis = analyse_run(trace_of_many_experts())
    assert analysis.information is not None
    assert analysis.information.null_draws == 19
    assert [d.affinity_pairs.tolist() for d in analysis.differences] == [
        [[0, 1], [2, 3], [3, 4], [5, 6]]
    ] * 2
    sheets = tables(analysis)
    assert sheets["affinity_adjacent"].num_rows == (LAYERS - 1) * EXPERTS * 32
    assert sheets["coactivation"].num_rows == LAYERS * EXPERTS * 32

    page = write_report(analysis, tmp_path).read_text()
    words = "Affinity is compared between domains at 4 of the 6 adjacent layer pairs"
    assert words in page
    assert words in summary(analysis)
    fewest = "fewer than 9 cannot be told from chance by 999 permutations"  # 7 * 64 / 50
    assert f"Of the 448 experts that domains may load differently, {fewest}" in page
    assert "layer pairs (0 → 1, 2 → 3, 3 → 4, 5 → 6)" in analysis.differences[0].summary()
    assert "affinity over 4 of the 6 adjacent layer pairs" in page
    assert "more pairs of experts are in tables/affinity_adjacent.csv" in page
    assert "No interval where tokens are too few" in page


def test_the_most_frequent_partners_are_kept() -> None:
    trace = trace_of_many_experts()
    sheet = tables(analyse_run(trace))["affinity_adjacent"].to_pylist()
    counts = rs.count(trace, hops=(1,), pairing="any")
    expert = int(counts.expert[2].argmax())
    listed = [r for r in sheet if (r["source_layer"], r["source_expert"]) == (2, expert)]
    row = counts.pair(2, 3)[expert]
    assert len(listed) == 32
    assert sum(r["tokens"] for r in listed) == np.sort(row)[-32:].sum()
    assert all(r["tokens"] == row[r["target_expert"]] for r in listed)
    assert [r["target_expert"] for r in listed] == sorted(r["target_expert"] for r in listed)


def test_pairs_of_layers_that_do_not_exist_are_named() -> None:
    trace = trace_of_many_experts()
    for pair in ((0, 7), (3, 3), (-1, 2), (4, 1)):
        with pytest.raises(InvalidValueError, match=r"pairs: expected layers 0 to 6, the source"):
            rs.stats.compare_domains(trace, pairs=[pair])
    with pytest.raises(InvalidTypeError, match="pairs: expected pairs of integers"):
        rs.stats.compare_domains(trace, pairs=[1])  # type: ignore[list-item]
    chosen = rs.stats.compare_domains(trace, pairs=[(2, 5), (0, 1)], permutations=9)
    assert chosen.affinity_pairs.tolist() == [[2, 5], [0, 1]]
    by_hop = rs.stats.compare_domains(trace, hops=(3,), permutations=9)
    assert chosen.affinity.bits[0] == by_hop.affinity.bits[2]


@pytest.mark.parametrize("largest", [0, 1, 300, contingency.LOOKED_UP + 5])
def test_sums_that_are_looked_up_are_those_that_are_computed(largest: int) -> None:
    rng = np.random.default_rng(largest)
    stack = rng.integers(0, largest + 1, (5, 33, 33)).astype(np.uint64)
    stack[1] //= 2
    stack[3] *= 3
    computed = contingency.xlog2x(stack).sum(axis=(-2, -1))
    assert np.array_equal(contingency.xlog2x_sums(stack), computed)
