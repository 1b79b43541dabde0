"""Two runs beside each other, and what happens where a part cannot be computed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from trace_cases import write_run

import routestats as rs
from routestats.cli import main
from routestats.errors import InvalidValueError
from routestats.report import compare_runs


def some_run(
    seed: int,
    *,
    skew: float = 0.0,
    tokens_known: bool = True,
    ordered: bool = True,
    prefix: str = "prompt",
) -> rs.Trace:
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
        groups={f"r{i}": f"{prefix} {i}" for i in range(40)},
        ordered=ordered,
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
    assert found.missing == {
        "decode": "A has 0 prompts with decode tokens; two are needed",
        "agreement": "token ids of B are not known",
    }
    for name, why in found.missing.items():
        assert f"{name}: not computed: {why}" in found.summary()
    written = json.loads(found.to_json())
    assert written["agreement"] is None
    assert written["missing"] == found.missing


def test_prompts_of_which_none_is_common_leave_out_the_same_tokens_only() -> None:
    found = compare_runs(some_run(0), some_run(1, prefix="other"), permutations=19, bootstrap=20)
    assert found.missing.keys() == {"decode", "agreement"}
    assert "A after the same tokens" in found.missing["agreement"]
    assert found.transfer is not None


def test_one_layer_and_unknown_order() -> None:
    single = compare_runs(
        some_run(0).filter(layers=[0]), some_run(1).filter(layers=[0]), permutations=19, bootstrap=9
    )
    assert single.transfer is None
    assert "one MoE layer" in single.missing["transfer"]
    assert len(single.differences["prefill"].affinity.bits) == 0
    unordered = compare_runs(some_run(0), some_run(1, ordered=False), permutations=19, bootstrap=9)
    assert unordered.missing.keys() == {"decode"}
    assert unordered.transfer is not None
    assert "top1_accuracy" not in {m.name for m in unordered.transfer.measures}


def test_nothing_to_compare_is_an_error() -> None:
    one = some_run(0).filter(requests=["r0"])
    other = some_run(1, prefix="other").filter(requests=["r0"])
    with pytest.raises(InvalidValueError, match=r"nothing can be compared: prefill: .*two are"):
        compare_runs(one, other)


def test_an_unforeseen_error_is_no_missing_part() -> None:
    with pytest.raises(InvalidValueError, match="permutations"):
        compare_runs(some_run(0), some_run(1), permutations=0)


def test_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        write_run(tmp_path / name, requests=12, rows=10)
    command = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--permutations", "19"]
    assert main(command) == 0
    assert "decode: not computed: a has 0 prompts with decode tokens" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"].keys() == {"decode"}


def test_runs_of_different_shape_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="B: expected shape"):
        compare_runs(some_run(0), some_run(1).filter(layers=[0, 1]))
