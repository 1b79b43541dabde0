"""The published tables: our values are those of the statistics, the papers' stand as printed."""

from __future__ import annotations

import json

import numpy as np
import pytest

import routestats as rs
from routestats.errors import InvalidValueError
from routestats.report import PAPER_TABLES, paper_table


def some_trace(layers: int = 5, requests: int = 6, length: int = 20) -> rs.Trace:
    rng = np.random.default_rng(0)
    tokens = requests * length
    experts = rng.permuted(np.tile(np.arange(8), (tokens, layers, 1)), axis=2)[:, :, :2]
    ids = [f"r{i // length}" for i in range(tokens)]
    return rs.Trace.from_arrays(
        experts.astype(np.uint8),
        num_experts=8,
        request_ids=ids,
        token_ids=rng.integers(0, 50, tokens),
        domain={f"r{i}": "code" if i % 2 else "maths" for i in range(requests)},
        ordered=True,
    )


def test_repetition_in_the_layout_of_table_5() -> None:
    trace = some_trace()
    table = paper_table(trace, "mixtral-repetition")
    found = rs.stats.repetition(trace)
    rows = {row.name: row for row in table.rows}
    assert table.columns[0] == "first, layer 0"
    assert table.columns[-1] == "any, layer 4"
    expected = 100 * np.concatenate(
        (found.first_choice.value[1, [0, 2, 4]], found.shared.value[1, [0, 2, 4]])
    )
    assert rows[found.domains[1]].values == pytest.approx(expected)
    assert rows["routed at random"].values == pytest.approx((12.5,) * 3 + (100 * 13 / 28,) * 3)
    assert rows["Mixtral-8x7B, Github"].values == (14.9, 28.1, 19.7, 49.9, 66.9, 49.2)
    assert rows["Mixtral-8x7B, Github"].origin == "published"
    assert "arXiv 2401.04088, table 5" in table.summary()


def test_specialization_shows_the_expert_that_a_domain_prefers() -> None:
    trace = some_trace()
    table = paper_table(trace, "olmoe-specialization")
    code = trace.filter(domain="code").experts[:, 0]
    row = next(row for row in table.rows if row.name == "code")
    share, everyone, expert = row.values[:3]
    in_code = (code == expert).any(axis=1).mean()
    in_all = (trace.experts[:, 0] == expert).any(axis=1).mean()
    assert (share, everyone) == pytest.approx((100 * in_code, 100 * in_all))
    assert share - everyone == pytest.approx(
        max(
            100 * ((code == e).any(axis=1).mean() - (trace.experts[:, 0] == e).any(axis=1).mean())
            for e in range(8)
        )
    )


def test_affinity_is_that_of_the_pairs() -> None:
    trace = some_trace()
    table = paper_table(trace, "exflow-affinity")
    first = trace.experts[:, :, 0]
    pairs = np.zeros((8, 8))
    np.add.at(pairs, (first[:, 0], first[:, 1]), 1)
    assert table.rows[0].values[0] == pytest.approx(100 * pairs.max(axis=1).sum() / len(trace))
    loads = np.bincount(first[:, 1], minlength=8)
    assert table.rows[-1].origin == "random"
    assert table.rows[-1].values[0] == pytest.approx(100 * loads.max() / len(trace))
    assert not any(row.origin == "published" for row in table.rows)


def test_srp_beside_the_papers_models() -> None:
    trace = some_trace()
    table = paper_table(trace, "srp")
    found = rs.stats.segment_routing(trace, m=16)
    assert table.rows[0].values == pytest.approx((100 * float(found.srp.value),))
    assert {row.name: row.values for row in table.rows}["OLMoE"] == (50.9,)


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_every_table_can_be_written_down(name: str) -> None:
    table = paper_table(some_trace(), name)
    arrow = table.to_table()
    assert arrow.num_rows == len(table.rows)
    assert len(set(arrow.column_names)) == arrow.num_columns
    assert json.loads(table.to_json())["source"]["arxiv"] == table.source.arxiv
    for row in table.rows:
        assert len(row.values) == len(table.columns)
        assert row.name in table.summary()


def test_unknown_tables_and_unfit_traces_are_named() -> None:
    with pytest.raises(InvalidValueError, match="table: expected one of mixtral-repetition"):
        paper_table(some_trace(), "table 9")
    with pytest.raises(InvalidValueError, match="at least 2 layers"):
        paper_table(some_trace(layers=1), "exflow-affinity")
    # The command has no option `m`: the message names what the user gave.
    with pytest.raises(InvalidValueError, match=r"^table srp: .* at least 16 .* run is 9$"):
        paper_table(some_trace(length=9), "srp")
