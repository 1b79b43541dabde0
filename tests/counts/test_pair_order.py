"""Layer pairs have one order: by hop, then by source. Mixed orders give wrong numbers silently."""

from __future__ import annotations

import numpy as np
import pytest
from stats_cases import make_trace

import routestats as rs
from routestats.counts._history import HistoryQuestion, history_totals
from routestats.counts._plan import PairPlan, layer_pairs, pair_layers
from routestats.stats._predictors.hits import Tally, hop_hits

BY_HOP = ((0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (1, 3), (2, 4), (0, 3), (1, 4), (0, 4))


def test_the_order() -> None:
    assert layer_pairs(5) == BY_HOP
    assert layer_pairs(5, (2, 4)) == ((0, 2), (1, 3), (2, 4), (0, 4))
    assert PairPlan((1, 2, 3, 4), 5).pairs == BY_HOP
    assert tuple(zip(*(part.tolist() for part in pair_layers(5)), strict=True)) == BY_HOP
    assert [part.shape for part in pair_layers(1)] == [(0,), (0,)]


@pytest.fixture(scope="module")
def sides() -> tuple[rs.Trace, rs.Trace]:
    return make_trace(5, layers=5, prompts=12, length=40)[0].split(test=0.4, seed=0)


def test_history_and_single_hop_stand_in_it(sides: tuple[rs.Trace, rs.Trace]) -> None:
    """A context of one layer is a single hop: the same hits, pair by pair."""
    train, test = sides
    fitted = rs.count(train, hops=range(1, 5), pairing="top1")
    tally = Tally.of(test, top1=True)
    single, _ = hop_hits(fitted, test, tally)
    question = HistoryQuestion(train.shape.num_experts, "top1", True, ())
    totals, _ = history_totals(train.experts, test.experts, question, orders=[1], supports=[1])
    found = totals[0, 0, 0]
    assert len(set(found.tolist())) > 5  # else another order might go unseen
    np.testing.assert_array_equal(found, single[0].sum(axis=0))
    for place, (source, target) in enumerate(BY_HOP):
        pair = fitted.pair(source, target)
        seen = pair.sum(axis=1) > 0
        best = np.where(seen, pair.argmax(axis=1), fitted.expert[target].argmax())
        first = test.experts[:, :, 0]
        assert found[place] == (best[first[:, source]] == first[:, target]).sum()


def test_matrices_and_tables_say_the_same(sides: tuple[rs.Trace, rs.Trace]) -> None:
    hits = rs.stats.history_hits(*sides, context="top1", names=["top1_accuracy"], seed=0)
    table = hits.to_table().to_pydict()
    assert tuple(zip(table["source"], table["target"], strict=True)) == BY_HOP
    accuracy = rs.stats.hop_accuracy(*sides, "top1", bootstrap=0)["top1_accuracy"]
    matrix = accuracy["history_longest"].matrix.value
    tokens = len(sides[1])
    for place, pair in enumerate(BY_HOP):
        assert table["longest_top1_accuracy_hits"][place] == pytest.approx(matrix[pair] * tokens)
