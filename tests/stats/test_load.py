"""Expert load and affinity on cases with known answers."""

from __future__ import annotations

import json

import numpy as np
import pytest

import routestats as rs
from routestats.errors import InvalidValueError
from routestats.stats import affinity, expert_load

# Two layers, four experts, top-2: expert 3 of layer 0 is never used.
EXPERTS = np.array(
    [
        [[0, 1], [2, 3]],
        [[0, 1], [2, 0]],
        [[0, 2], [2, 1]],
        [[1, 0], [3, 2]],
    ],
    dtype=np.uint8,
)


def counts(pairing: str) -> rs.RouteCounts:
    return rs.count(EXPERTS, num_experts=4, pairing=pairing)


def test_load_of_any_counts_every_choice() -> None:
    load = expert_load(counts("any"))
    assert load.load.tolist() == [[4, 3, 1, 0], [1, 1, 4, 2]]
    assert load.load.dtype == np.uint64
    assert load.share[0].tolist() == [0.5, 0.375, 0.125, 0.0]
    # Over all four experts, the unused one included: mean 2, max 4.
    assert load.imbalance.tolist() == [2.0, 2.0]
    expected = -(0.5 * np.log2(0.5) + 0.375 * np.log2(0.375) + 0.125 * np.log2(0.125))
    assert load.entropy_bits[0] == pytest.approx(expected)
    assert load.effective_experts[0] == pytest.approx(2**expected)
    assert load.tokens == 4
    assert load.pairing == "any"


def test_load_of_top1_counts_first_choices() -> None:
    load = expert_load(counts("top1"))
    assert load.load.tolist() == [[3, 1, 0, 0], [0, 0, 3, 1]]
    assert load.pairing == "top1"


def test_even_and_single_expert_loads_are_the_extremes() -> None:
    even = np.arange(8, dtype=np.uint8).reshape(8, 1, 1)
    load = expert_load(rs.count(even, num_experts=8, pairing="any"))
    assert load.imbalance[0] == 1.0
    assert load.entropy_bits[0] == 3.0
    assert load.effective_experts[0] == 8.0
    one = np.full((5, 1, 1), 3, dtype=np.uint8)
    load = expert_load(rs.count(one, num_experts=8, pairing="any"))
    assert load.imbalance[0] == 8.0
    assert load.entropy_bits[0] == 0.0
    assert not np.signbit(load.entropy_bits[0])
    assert load.effective_experts[0] == 1.0


def test_load_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"counts\.tokens: expected at least 1, got 0"):
        expert_load(rs.count(EXPERTS[:0], num_experts=4, pairing="any"))


def test_affinity_of_any_sums_to_k_and_unused_experts_are_nan() -> None:
    result = affinity(counts("any"), 0, 1)
    # Expert 1 of layer 0 is chosen by tokens 0, 1 and 3: with 2, 3, 0 at layer 1.
    assert result.matrix[1].tolist() == pytest.approx([1 / 3, 0, 1, 2 / 3])
    assert result.matrix[:3].sum(axis=1).tolist() == pytest.approx([2, 2, 2])
    assert np.isnan(result.matrix[3]).all()
    assert result.source_tokens.tolist() == [4, 3, 1, 0]


def test_affinity_of_top1_is_a_conditional_probability() -> None:
    result = affinity(counts("top1"), 0, 1)
    assert result.matrix[:2].tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    assert np.isnan(result.matrix[2:]).all()


def test_affinity_backwards_and_within_a_layer() -> None:
    backwards = affinity(counts("any"), 1, 0)
    assert backwards.matrix[3].tolist() == [1, 1, 0, 0]
    within = affinity(counts("any"), 0, 0)
    assert np.diag(within.matrix)[:3].tolist() == [1, 1, 1]
    assert within.matrix[2].tolist() == [1, 0, 1, 0]


def test_results_become_json_without_nan() -> None:
    text = json.dumps(affinity(counts("any"), 0, 1).to_dict(), allow_nan=False)
    assert json.loads(text)["matrix"][3] == [None] * 4
    load = json.loads(json.dumps(expert_load(counts("any")).to_dict(), allow_nan=False))
    assert load["shape"] == {"num_layers": 2, "num_experts": 4, "top_k": 2}
    assert load["load"][0] == [4, 3, 1, 0]


def test_summary_names_pairing_and_worst_layer() -> None:
    text = expert_load(counts("any")).summary()
    assert "(any), 4 tokens" in text
    assert "imbalance (max/mean) 2.00 on average" in text
