"""Two runs beside each other, and what happens where a part cannot be computed."""

from __future__ import annotations

import json

import numpy as np
import pytest

import routestats as rs
from routestats.errors import InvalidValueError
from routestats.report import compare_runs


def some_run(seed: int, *, skew: float = 0.0, tokens_known: bool = True) -> rs.Trace:
    """40 prompts of 20 tokens, 3 layers; `skew` makes expert 0 likelier."""
    rng = np.random.default_rng(seed)
    tokens = 800
    score = rng.gumbel(size=(tokens, 3, 8))
    score[:, :, 0] += skew
    return rs.Trace.from_arrays(
        np.argsort(-score, axis=2)[:, :, :2].astype(np.uint8),
        num_experts=8,
        request_ids=[f"r{i // 20}" for i in range(tokens)],
        token_ids=np.arange(tokens) if tokens_known else None,
        groups={f"r{i}": f"prompt {i}" for i in range(40)},
        ordered=True,
    )


def test_a_shift_of_load_is_found_and_its_absence_is_not() -> None:
    base = some_run(0)
    shifted = compare_runs(base, some_run(1, skew=1.0), permutations=199, bootstrap=50)
    assert (shifted.differences["prefill"].load.q_value < 0.05).all()
    assert shifted.agreement is not None
    assert shifted.agreement.tokens == 800
    assert shifted.transfer is not None
    assert shifted.missing.keys() == {"decode"}
    same = compare_runs(base, some_run(2), permutations=199, bootstrap=50)
    assert (same.differences["prefill"].load.p_value > 0.01).all()


def test_what_cannot_be_computed_is_said() -> None:
    found = compare_runs(
        some_run(0), some_run(1, tokens_known=False), permutations=19, bootstrap=20
    )
    assert found.agreement is None
    assert "token_ids" in found.missing["agreement"]
    assert "agreement: not computed: token_ids" in found.summary()
    assert json.loads(found.to_json())["agreement"] is None


def test_runs_of_different_shape_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="B: expected shape"):
        compare_runs(some_run(0), some_run(1).filter(layers=[0, 1]))
