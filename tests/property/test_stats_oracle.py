"""`hop_accuracy` and `expert_load` against plain loops, over random shapes."""

from __future__ import annotations

from collections import Counter
from math import isnan, log2
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import routestats as rs
from routestats.stats import expert_load, hop_accuracy
from routestats.stats._predictors import hits as predictor_hits

Experts = npt.NDArray[np.integer]


def oracle(
    train: Experts, test: Experts, e: int, pairing: str, src: int | None, dst: int, m: int
) -> list[Any]:
    """Predicted best-m list of every test token; src None is the marginal."""
    k = train.shape[2]
    slots = k if pairing == "any" else 1
    used: Counter[int] = Counter()
    source_used: Counter[int] = Counter()
    both: Counter[tuple[int, int]] = Counter()
    for token in train:
        used.update(int(b) for b in token[dst, :slots])
        if src is not None:
            source_used.update(int(a) for a in token[src, :slots])
            both.update((int(a), int(b)) for a in token[src, :slots] for b in token[dst, :slots])
    predictions = []
    for token in test:
        scores = [0] * e
        for expert in range(e):
            # In units of 2 ** -40, so that sums and ties are exact.
            if src is None:
                scores[expert] = round(used[expert] / len(train) * 2**40)
                continue
            for a in (int(a) for a in token[src, :slots]):
                if source_used[a]:
                    share = both[a, expert] / source_used[a]
                else:
                    share = used[expert] / len(train)
                scores[expert] += round(share * 2**40)
        predictions.append(sorted(range(e), key=lambda x: (-scores[x], x))[:m])
    return predictions


@st.composite
def cases(draw: st.DrawFn) -> tuple[Experts, Experts, int, str]:
    layers = draw(st.integers(2, 5))
    e = draw(st.sampled_from([1, 2, 3, 5, 8, 12]))
    k = draw(st.integers(1, min(e, 4)))
    sizes = draw(st.tuples(st.integers(1, 25), st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    skew = draw(st.sampled_from([0.0, 1.0, 3.0])) * rng.normal(size=(layers, e))
    sides = [
        (rng.gumbel(size=(size, layers, e)) + skew).argsort(axis=2)[:, :, :k].astype(np.uint8)
        for size in sizes
    ]
    return sides[0], sides[1], e, draw(st.sampled_from(["any", "top1"]))


def as_trace(experts: Experts, e: int, groups: int) -> rs.Trace:
    # Interleaved requests, so that rows of one group do not lie together.
    ids = [f"r{i % groups}" for i in range(len(experts))]
    positions = np.arange(len(experts), dtype=np.int32) // groups
    return rs.Trace.from_arrays(
        experts, num_experts=e, request_ids=ids, positions=positions, ordered=True
    )


@settings(max_examples=60, deadline=None)
@given(cases())
@pytest.mark.parametrize("small_batches", [False, True])
def test_hop_accuracy_is_what_loops_say(
    small_batches: bool, case: tuple[Experts, Experts, int, str]
) -> None:
    train, test, e, pairing = case
    layers, k = train.shape[1:]
    traces = as_trace(train, e, 2), as_trace(test, e, 3)
    with pytest.MonkeyPatch.context() as patch:
        if small_batches:
            patch.setattr(predictor_hits, "BATCH_ROWS", 7)
        result = hop_accuracy(*traces, pairing=pairing, bootstrap=0)
    sizes = [m for m in (k, 2 * k, 4 * k) if m == k or m < e]
    assert {m.name for m in result.measures} == {
        "top1_accuracy",
        "exact_set",
        *(f"recall_at_{m}" for m in sizes),
    }
    for dst in range(layers):
        for src in [None, *range(layers)]:
            best = oracle(train, test, e, pairing, src, dst, e)
            truth = [[int(x) for x in token[dst]] for token in test]
            expected = {
                "top1_accuracy": sum(b[0] == t[0] for b, t in zip(best, truth, strict=True)),
                "exact_set": sum(set(b[:k]) == set(t) for b, t in zip(best, truth, strict=True)),
            }
            for m in sizes:
                found = sum(len(set(b[:m]) & set(t)) for b, t in zip(best, truth, strict=True))
                expected[f"recall_at_{m}"] = found / k
            for name, hits in expected.items():
                measure = result[name]
                if src is None:
                    got = measure.marginal.value[dst]
                    missing = dst == 0
                else:
                    got = measure.hop.value[src, dst]
                    missing = dst <= src
                if missing:
                    assert isnan(got)
                else:
                    assert got == pytest.approx(hits / len(test))


def marginal_order(train: Experts, e: int, layer: int, slots: int) -> list[int]:
    used = Counter(int(x) for token in train for x in token[layer, :slots])
    return sorted(range(e), key=lambda x: (-used[x], x))


def token_id_guess(
    train: Experts, train_ids: Experts, token_id: int, e: int, layer: int, slots: int
) -> list[int]:
    same = [token for token, other in zip(train, train_ids, strict=True) if other == token_id]
    return marginal_order(np.array(same) if same else train, e, layer, slots)


def previous_guess(
    train: Experts, earlier: Experts | None, e: int, layer: int, slots: int
) -> list[int]:
    again = [] if earlier is None else [int(x) for x in earlier[layer, :slots]]
    return again + [x for x in marginal_order(train, e, layer, slots) if x not in again]


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**32))
def test_token_predictors_are_what_loops_say(
    case: tuple[Experts, Experts, int, str], seed: int
) -> None:
    train, test, e, pairing = case
    layers, k = train.shape[1:]
    slots = k if pairing == "any" else 1
    rng = np.random.default_rng(seed)
    train_ids, test_ids = (rng.integers(0, 6, len(side)) for side in (train, test))
    # Requests with gaps in their positions, and rows in no order at all.
    owner = rng.integers(0, 3, len(test))
    position = np.zeros(len(test), dtype=int)
    for request in range(3):
        mine = np.flatnonzero(owner == request)
        position[mine] = rng.permutation(np.arange(2 * len(mine)))[: len(mine)]
    result = hop_accuracy(
        rs.Trace.from_arrays(train, num_experts=e, token_ids=train_ids, ordered=True),
        rs.Trace.from_arrays(
            test,
            num_experts=e,
            request_ids=[f"r{i}" for i in owner],
            positions=position,
            token_ids=test_ids,
            ordered=True,
        ),
        pairing=pairing,
        bootstrap=0,
    )
    at = {(int(o), int(p)): t for t, (o, p) in enumerate(zip(owner, position, strict=True))}
    before = [at.get((int(o), int(p) - 1)) for o, p in zip(owner, position, strict=True)]
    assert result.fallback_tokens == {
        "token_id": sum(x not in train_ids for x in test_ids),
        "previous_token": before.count(None),
    }
    for dst in range(1, layers):
        guesses = {
            "token_id": [token_id_guess(train, train_ids, x, e, dst, slots) for x in test_ids],
            "previous_token": [
                previous_guess(train, None if b is None else test[b], e, dst, slots) for b in before
            ],
        }
        truth = [[int(x) for x in token[dst]] for token in test]
        for predictor, best in guesses.items():
            pairs = list(zip(best, truth, strict=True))
            expected = {"top1_accuracy": sum(b[0] == t[0] for b, t in pairs) / len(test)}
            expected["exact_set"] = sum(set(b[:k]) == set(t) for b, t in pairs) / len(test)
            for m in (m for m in (k, 2 * k, 4 * k) if m == k or m < e):
                found = sum(len(set(b[:m]) & set(t)) for b, t in pairs)
                expected[f"recall_at_{m}"] = found / k / len(test)
            for name, share in expected.items():
                # The same at every source before the target, and nothing after.
                column = result[name][predictor].matrix.value[:, dst]
                assert column[:dst] == pytest.approx([share] * dst)
                assert all(isnan(x) for x in column[dst:])


@settings(max_examples=60, deadline=None)
@given(cases())
def test_expert_load_is_what_loops_say(case: tuple[Experts, Experts, int, str]) -> None:
    experts, _, e, pairing = case
    result = expert_load(rs.count(experts, num_experts=e, pairing=pairing))
    slots = experts.shape[2] if pairing == "any" else 1
    for layer in range(experts.shape[1]):
        used = Counter(int(x) for token in experts for x in token[layer, :slots])
        total = len(experts) * slots
        assert result.load[layer].tolist() == [used[x] for x in range(e)]
        assert result.imbalance[layer] == pytest.approx(max(used.values()) / (total / e))
        entropy = -sum(n / total * log2(n / total) for n in used.values())
        assert result.entropy_bits[layer] == pytest.approx(entropy, abs=1e-12)
        assert result.effective_experts[layer] == pytest.approx(2**entropy)
