"""Transfer: against `hop_accuracy`, on domains of opposite rules, and its training tokens."""

from __future__ import annotations

import numpy as np
import pytest
from stats_cases import make_trace

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats._transfer import _fit


def rule_trace(lengths: dict[str, int], prompts: int = 10) -> rs.Trace:
    """Domain a goes to expert e + 1 from layer to layer, domain b to e + 2, of five."""
    rng = np.random.default_rng(0)
    experts, requests, domains = [], [], {}
    for step, (domain, length) in enumerate(lengths.items(), start=1):
        for prompt in range(prompts):
            first = rng.integers(0, 5, length)
            experts.append((first[:, None] + step * np.arange(3)) % 5)
            requests += [f"{domain}{prompt}"] * length
            domains[f"{domain}{prompt}"] = domain
    ids = np.concatenate(experts)[:, :, None].astype(np.uint8)
    return rs.Trace.from_arrays(ids, num_experts=5, request_ids=requests, domain=domains)


def test_opposite_rules_do_not_transfer() -> None:
    found = rs.stats.transfer(rule_trace({"a": 40, "b": 90}))
    assert found.train_tokens == 8 * 40
    assert found.train_groups == (8, 4)
    assert found.test_groups == (2, 2)
    assert found.test_tokens == (80, 180)
    accuracy = found["top1_accuracy"]
    assert found["recall_at_1"].hop.value.tolist() == accuracy.hop.value.tolist()
    for hop in range(2):
        assert accuracy.hop.value[:, :, hop].tolist() == [[1.0, 0.0], [0.0, 1.0]]
        assert accuracy.loss.value[:, hop].tolist() == [1.0, 1.0]
    assert (accuracy.marginal.value < 0.5).all()
    assert accuracy.hop.low[0, 0].tolist() == [1.0, 1.0]
    assert found.to_table().num_rows == 2 * 2 * 2 * 2
    assert "on a from b: 0.0% [0.0%, 0.0%]" in found.summary()


@pytest.mark.parametrize("pairing", ["any", "top1"])
def test_each_cell_is_what_hop_accuracy_says(pairing: str) -> None:
    trace, _ = make_trace(1, prompts=8, length=30)
    found = rs.stats.transfer(trace, "b", "a", pairing, test=0.5, seed=3, bootstrap=50)
    train, test = trace.split(test=0.5, seed=3)
    for i, trained in enumerate("ba"):
        # The smaller training set is taken whole.
        if len(train.filter(domain=trained)) != found.train_tokens:
            continue
        assert found.train_groups[i] == 4
        for j, tested in enumerate("ba"):
            expected = rs.stats.hop_accuracy(
                train.filter(domain=trained),
                test.filter(domain=tested),
                pairing,
                seed=3,
                bootstrap=50,
            )
            for name in ("top1_accuracy", "recall_at_2"):
                for got, wanted in (
                    (found[name].hop, expected[name].hop_by_distance),
                    (found[name].marginal, expected[name].marginal_by_distance),
                ):
                    for part, other in zip(got, wanted, strict=True):
                        np.testing.assert_allclose(part[i, j], other)
        for name in ("top1_accuracy", "recall_at_2"):
            hop, loss = found[name].hop.value, found[name].loss
            for j in range(2):
                np.testing.assert_allclose(loss.value[j], hop[j, j] - hop[1 - j, j])
                assert (loss.low[j] < loss.value[j]).all()
                assert (loss.value[j] < loss.high[j]).all()
        break
    else:
        pytest.fail("neither training set was taken whole")


def test_training_takes_whole_groups_and_trims_the_last() -> None:
    trace, _ = make_trace(2, prompts=6, length=20)
    side = trace.filter(domain="a")
    sizes = np.bincount(np.unique(side.row_groups(), return_inverse=True)[1])
    tokens = int(sizes.sum() // 2)
    counts, groups = _fit(side, "any", tokens, np.random.default_rng(0))
    assert counts.tokens == tokens
    assert 1 <= groups < len(sizes)
    # The same by hand: groups in their random order, and of the last one its first tokens.
    place = np.random.default_rng(0).permutation(len(sizes))
    numbers = np.unique(side.row_groups(), return_inverse=True)[1]
    names, positions = side.rows["request_id"].to_pylist(), side.rows["position"].to_pylist()
    rows_in_order = sorted(
        range(len(side)), key=lambda row: (place[numbers[row]], names[row], positions[row])
    )
    taken = rows_in_order[:tokens]
    assert groups == len({numbers[row] for row in taken})
    expected = rs.count(side.experts[taken], num_experts=5, hops=(1, 2), pairing="any")
    assert counts == expected
    assert counts != _fit(side, "any", tokens, np.random.default_rng(1))[0]
    whole, _ = _fit(side, "any", int(sizes.sum()), np.random.default_rng(0))
    assert whole == rs.count(side, hops=(1, 2), pairing="any")


def test_what_is_refused() -> None:
    trace, rows = make_trace(0)
    for arguments, message in (
        ({"first": "a", "second": "c"}, "second: expected one of a, b, got 'c'"),
        ({"pairing": "all"}, "pairing: expected one of any, top1, got 'all'"),
        ({"phase": "decode"}, "a: expected at least 2 prompt groups in decode, .* got 0"),
        ({"phase": "both"}, "phase: expected one of prefill, decode or None, got 'both'"),
        ({"test": 1.5}, "test: expected between 0 and 1"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            rs.stats.transfer(trace, **arguments)
    with pytest.raises(InvalidValueError, match=r"first, second: .* the trace's 1 domains \(a\)"):
        rs.stats.transfer(trace.filter(domain="a"))
    one = [row.request for row in rows if row.domain == "a" or row.group == "b0"]
    with pytest.raises(InvalidValueError, match="b: expected at least 2 prompt groups in prefill"):
        rs.stats.transfer(trace.filter(requests=one))
    with pytest.raises(InvalidTypeError, match="trace: expected a Trace, got list"):
        rs.stats.transfer([])  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="expected at least 2 layers"):
        rs.stats.transfer(trace.filter(layers=[0]))
    unordered, _ = make_trace(0, ordered=False)
    with pytest.raises(InvalidValueError, match=r"trace\.ordered: .* which top1=True needs"):
        rs.stats.transfer(unordered)
    with pytest.raises(InvalidValueError, match=r"trace\.ordered: .* which pairing 'top1' needs"):
        rs.stats.transfer(unordered, pairing="top1", top1=False)
    found = rs.stats.transfer(unordered, top1=False, phase=None, bootstrap=0)
    assert [measure.name for measure in found.measures] == ["recall_at_2"]
    with pytest.raises(InvalidValueError, match="measure: expected one of recall_at_2"):
        found["top1_accuracy"]
