"""The report of a model with many experts: what it restricts itself to, and that it says so."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.report import analyse_run, summary, write_report
from routestats.report._limits import affinity_pairs, null_draws, partners_listed
from routestats.report._registry import restrictions, tables
from routestats.report.sections.affinity import adjacent_affinity
from routestats.shape import RouteShape
from routestats.stats._base import contingency
from routestats.stats._base.foremost import foremost

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


def trace_of_domains(domains: int) -> rs.Trace:
    """Each domain has three prompts of 20 tokens, the last five written."""
    rng = np.random.default_rng(domains)
    tokens = domains * 3 * 20
    request = np.arange(tokens) // 20
    return rs.Trace.from_arrays(
        rng.random((tokens, 3, 8)).argsort(axis=2)[:, :, :2].astype(np.uint8),
        num_experts=8,
        request_ids=[f"r{number}" for number in request],
        positions=np.arange(tokens) % 20,
        token_ids=rng.integers(0, 30, tokens),
        phase=np.where(np.arange(tokens) % 20 < 15, "prefill", "decode").tolist(),
        domain={f"r{number}": f"domain-{number // 3}" for number in range(domains * 3)},
        ordered=True,
    )


def test_pairs_of_domains_that_are_left_out_are_told(tmp_path: Path) -> None:
    analysis = analyse_run(trace_of_domains(6))
    kept = list(dict.fromkeys(d.domains for d in analysis.differences))
    assert len(kept) == 6
    names = ", ".join(" – ".join(pair) for pair in kept)
    words = f"6 of the 15 pairs of domains are compared, the first in alphabetical order: {names}."
    told = restrictions(analysis)
    page = write_report(analysis, tmp_path).read_text()
    assert any(text.startswith(words) for text in told)
    assert words in page
    assert words in summary(analysis)
    # What is drawn of two, or of few, domains only is told as well, and where its numbers are.
    assert not list(tmp_path.glob("*difference*.png"))
    assert not (tmp_path / "load_by_domain.png").exists()
    assert any("Figures of the difference of two domains" in text for text in told)
    assert any("The loads of 6 domains are in tables" in text for text in told)
    assert len(list((tmp_path / "tables").glob("difference_*.csv"))) == 12
    assert "this run has 6" in analysis.missing["transfer"]
    assert "5 more pairs of domains are compared" in page


def test_all_pairs_of_few_domains_are_compared_and_nothing_is_told() -> None:
    two = analyse_run(trace_of_domains(2))
    assert restrictions(two) == []
    assert "transfer" not in two.missing
    three = analyse_run(trace_of_domains(3))
    assert len({d.domains for d in three.differences}) == 3
    assert not any("pairs of domains are compared" in text for text in restrictions(three))


def test_tables_say_which_layers_and_distances_they_show(tmp_path: Path) -> None:
    analysis = analyse_run(trace_of_many_experts())
    page = write_report(analysis, tmp_path).read_text()
    assert "Shown are 3 of 6 distances; all are in tables/prediction.csv." in page
    assert "Computed for 3 of 6 distances." in page
    assert "Shown are 3 of 7 layers; all are in tables/repetition.csv." in page


def test_only_the_rows_that_are_kept_are_made() -> None:
    layers, experts, tokens = 8, 256, 400
    rng = np.random.default_rng(0)
    ids = rng.random((tokens, layers, experts)).argsort(axis=2)[:, :, :4].astype(np.uint8)
    counts = rs.count(ids, num_experts=experts, hops=(0, 1), pairing="any")
    together = rs.stats.coactivation(counts)
    for make, of in (
        (lambda: adjacent_affinity(counts), layers - 1),
        (lambda: together.to_table(partners_listed(counts.shape)), layers),
    ):
        pool = pa.default_memory_pool()
        before = pool.bytes_allocated()
        tracemalloc.start()
        table = make()
        arrays = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert table.num_rows == of * experts * 32
        # All rows of one layer pair take this much, in the least columns that make a row.
        one_pair = experts * experts * 8 * table.num_columns
        made = arrays + pool.bytes_allocated() - before
        assert made < table.nbytes + 3 * one_pair < of * one_pair


def test_listed_partners_are_the_largest_of_all() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 9, (40, 50)).astype(np.float64)  # with ties
    values[3] = np.nan
    values[:, 7] = -np.inf
    rows, columns = foremost(values, 12)
    for row in range(len(values)):
        listed = columns[rows == row]
        known = np.nan_to_num(values[row], nan=-1.0, neginf=-np.inf)
        expected = [int(c) for c in np.argsort(-known, kind="stable") if c != 7][:12]
        assert listed.tolist() == sorted(expected)
    assert np.array_equal(np.unique(foremost(values, 50)[1]), np.delete(np.arange(50), 7))


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
