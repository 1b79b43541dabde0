"""History prediction in C++ equals the reference, whatever the shape, memory and threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import routestats as rs
from routestats.counts._history import (
    Context,
    HistoryQuestion,
    history_group_hits,
    history_totals,
)
from routestats.counts._plan import pair_layers
from routestats.counts.reference import history as reference_history

Ids = npt.NDArray[np.integer[Any]]
PROFILE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Case:
    train: Ids
    test: Ids
    question: HistoryQuestion
    orders: tuple[int, ...]
    supports: tuple[int, ...]
    threads: int

    def __repr__(self) -> str:
        return (
            f"Case({self.train.shape}, {self.test.shape}, {self.train.dtype}, {self.question}, "
            f"{self.orders}, {self.supports}, threads={self.threads})"
        )

    def reference(self, source: int, target: int, order: int, support: int) -> npt.NDArray[Any]:
        """Hits of each test token, shape [measures, T]."""
        question = self.question
        hits = reference_history.history_hits(
            self.train,
            self.test,
            question.num_experts,
            source,
            target,
            context=question.context,
            order=order,
            min_support=support,
            best=question.best,
        )
        rows = [hits.first] * question.top1 + [hits.best[m] for m in question.best]
        return np.array(rows + [hits.exact] * bool(question.best), np.int64)


def tokens(rng: np.random.Generator, count: int, pool: Ids, kinds: int) -> Ids:
    """Tokens that follow one path of `pool` [kinds, L, K], or another at every layer."""
    layers = pool.shape[1]
    whole = pool[rng.integers(0, kinds, count)]
    mixed = pool[rng.integers(0, kinds, (count, layers)), np.arange(layers)]
    from_layer = rng.integers(0, layers + 1, (count, 1))  # whole before it, mixed from there on
    return np.where((np.arange(layers) < from_layer)[:, :, None], whole, mixed)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    L = draw(st.integers(2, 12))
    E = draw(st.sampled_from([1, 2, 3, 8, 9, 16, 17, 40, 256, 257, 300]))
    K = draw(st.integers(1, min(E, 8)))
    size = st.integers(1, 300 if L < 6 else 90)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = draw(st.integers(1, 12))
    pool = rng.random((kinds, L, E)).argsort(axis=2)[:, :, :K]
    train, test = (tokens(rng, draw(size), pool, kinds) for _ in range(2))
    if draw(st.booleans()):
        test = test[:0]
    dtype = np.uint16 if E > 256 or draw(st.booleans()) else np.uint8
    context: Context = draw(st.sampled_from(["top1", "set"]))
    top1 = draw(st.booleans())
    sizes = tuple(m for m in (K, 2 * K, 4 * K) if m == K or m < E)
    best = sizes if not top1 or draw(st.booleans()) else ()
    question = HistoryQuestion(E, context, top1, best)
    number = st.integers(1, L + 3)
    return Case(
        rearranged(train.astype(dtype), draw(st.booleans())),
        rearranged(test.astype(dtype), draw(st.booleans())),
        question,
        tuple(sorted(draw(st.sets(number, min_size=1, max_size=4)))),
        tuple(sorted(draw(st.sets(st.sampled_from([1, 2, 3, 8, 1000]), min_size=1)))),
        draw(st.integers(1, 8)),
    )


def rearranged(ids: Ids, strided: bool) -> Ids:
    """The same values, every second row of an array in Fortran order if asked for."""
    if not strided:
        return ids
    return np.asfortranarray(np.repeat(ids, 2, axis=0))[::2]


@PROFILE
@given(cases(), st.data())
def test_totals_equal_the_reference(case: Case, data: st.DataObject) -> None:
    hits, resolved = history_totals(
        case.train,
        case.test,
        case.question,
        orders=case.orders,
        supports=case.supports,
        threads=case.threads,
    )
    L = case.train.shape[1]
    source, target = pair_layers(L)
    for pair in data.draw(st.sets(st.integers(0, len(source) - 1), min_size=1, max_size=3)):
        for s, support in enumerate(case.supports):
            for m, order in enumerate(case.orders):
                expected = case.reference(source[pair], target[pair], order, support).sum(axis=1)
                np.testing.assert_array_equal(hits[s, m, :, pair], expected)
            lengths = reference_history.history_hits(
                case.train,
                case.test,
                case.question.num_experts,
                source[pair],
                target[pair],
                context=case.question.context,
                order=L,
                min_support=support,
            ).length
            np.testing.assert_array_equal(
                resolved[s, source[pair]], np.bincount(lengths, minlength=L)
            )


@PROFILE
@given(cases(), st.data())
def test_group_hits_equal_the_reference(case: Case, data: st.DataObject) -> None:
    source, target = pair_layers(case.train.shape[1])
    seed = data.draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    order = rng.choice(case.orders, len(source))
    support = rng.choice(case.supports, len(source))
    num_groups = 5
    groups = rng.integers(0, num_groups, len(case.test))
    hits, _ = history_group_hits(
        case.train,
        case.test,
        case.question,
        orders=case.orders,
        supports=case.supports,
        chosen_order=order,
        chosen_support=support,
        groups=groups,
        num_groups=num_groups,
        threads=case.threads,
    )
    for pair in data.draw(st.sets(st.integers(0, len(source) - 1), min_size=1, max_size=4)):
        by_token = case.reference(source[pair], target[pair], order[pair], support[pair])
        expected = [by_token[:, groups == g].sum(axis=1) for g in range(num_groups)]
        np.testing.assert_array_equal(hits[:, :, pair].T, expected)


@PROFILE
@given(cases(), st.data())
def test_the_model_says_what_the_kernel_counts(case: Case, data: st.DataObject) -> None:
    """`prob` has its greatest value at the reference's prediction; `to_table` holds the same."""
    train, question = case.train, case.question
    L = train.shape[1]
    model = rs.stats.history(train, question.context, num_experts=question.num_experts)
    source = data.draw(st.integers(0, L - 2))
    target = data.draw(st.integers(source + 1, L - 1))
    order, support = case.orders[0], case.supports[-1]
    table = model.to_table(source, target, order=order, min_support=support).to_pylist()
    found = {tuple(row["context"]): row for row in table}
    for t, token in enumerate(case.test[:20]):
        prefix = token[: source + 1] if question.context == "set" else token[: source + 1, 0]
        prob = model.prob(prefix, target - source, order=order, min_support=support)
        assert prob.sum() == pytest.approx(1.0)
        expected = reference_history.history_hits(
            train,
            case.test[t : t + 1],
            question.num_experts,
            source,
            target,
            context=question.context,
            order=order,
            min_support=support,
        )
        assert (prob.argmax() == token[target, 0]) == expected.first[0]
        assert model.resolve(prefix, order=order, min_support=support).length == expected.length[0]
        latest = np.sort(prefix.reshape(source + 1, -1), axis=1)[source + 1 - expected.length[0] :]
        row = found[tuple(latest.ravel().tolist())]
        assert row["target_expert"][0] == prob.argmax()
        shares = np.array(row["target_tokens"]) / row["tokens"]
        np.testing.assert_allclose(prob[row["target_expert"]], shares)


def test_more_settings_than_one_sweep_takes() -> None:
    rng = np.random.default_rng(5)
    ids = rng.integers(0, 3, (200, 30, 1))
    question = HistoryQuestion(3, "top1", True, ())
    orders, supports = range(1, 31), (1, 2, 3, 5, 8)
    hits, resolved = history_totals(
        ids[:150], ids[150:], question, orders=orders, supports=supports
    )
    for s, support in enumerate(supports):
        alone, resolved_alone = history_totals(
            ids[:150], ids[150:], question, orders=orders, supports=[support]
        )
        np.testing.assert_array_equal(hits[s], alone[0])
        np.testing.assert_array_equal(resolved[s], resolved_alone[0])
