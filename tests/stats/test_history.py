"""Prediction from history on chains whose best possible prediction is known."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import routestats as rs
from routestats.counts._history import HistoryQuestion, history_group_hits, history_totals
from routestats.counts._plan import layer_pairs, pair_layers
from routestats.counts.reference import history as reference_history
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats import history, history_hits, hop_accuracy

Experts = npt.NDArray[np.uint8]
E, L = 4, 7


@dataclass(frozen=True)
class Chain:
    """Layers whose next choice depends on the last `order`; [L, E ** order, E] probabilities."""

    order: int
    tables: npt.NDArray[np.float64]

    @classmethod
    def draw(cls, order: int, seed: int) -> Chain:
        rng = np.random.default_rng(seed)
        return cls(order, rng.dirichlet(np.full(E, 0.4), (L, E**order)))

    def _push(
        self, state: npt.NDArray[np.int64], choice: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """The last `order` choices as one number, the latest in the lowest digit."""
        after: npt.NDArray[np.int64] = (state * E + choice) % E**self.order
        return after

    def sample(self, tokens: int, seed: int) -> Experts:
        rng = np.random.default_rng(seed)
        state = np.zeros(tokens, np.int64)
        experts = np.empty((tokens, L, 1), np.uint8)
        for layer in range(L):
            limits = self.tables[layer, state].cumsum(axis=1)
            choice = (rng.random(tokens)[:, None] > limits[:, :-1]).sum(axis=1)
            experts[:, layer, 0] = choice
            state = self._push(state, choice)
        return experts

    def bayes_rate(self, source: int, target: int) -> float:
        """Accuracy of the best prediction of `target` from all layers up to `source`, exactly."""
        states = E**self.order
        moves = []
        for layer in range(L):
            move = np.zeros((states, states))
            for choice in range(E):
                after = self._push(np.arange(states), np.full(states, choice))
                np.add.at(move, (np.arange(states), after), self.tables[layer, :, choice])
            moves.append(move)
        occupied = np.zeros(states)
        occupied[0] = 1.0
        for layer in range(source + 1):
            occupied = occupied @ moves[layer]
        ahead = np.eye(states)
        for layer in range(source + 1, target + 1):
            ahead = ahead @ moves[layer]
        # The latest choice is the lowest digit.
        choices = ahead.reshape(states, -1, E).sum(axis=1)
        return float(occupied @ choices.max(axis=1))


def trace(
    experts: Experts, num_experts: int = E, *, requests: int = 40, **options: Any
) -> rs.Trace:
    owner = np.arange(len(experts)) * requests // len(experts)
    positions = np.concatenate([np.arange(n) for n in np.bincount(owner)]).astype(np.int32)
    options.setdefault("ordered", True)
    return rs.Trace.from_arrays(
        experts,
        num_experts=num_experts,
        request_ids=[f"r{i}" for i in owner],
        positions=positions,
        **options,
    )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_order_of_a_chain_is_enough(order: int) -> None:
    """At m = the chain's order within 1 % of the Bayes rate, selected within 2 %."""
    chain = Chain.draw(order, seed=order)
    train, test = trace(chain.sample(40_000, seed=10)), trace(chain.sample(60_000, seed=11))
    source, target = pair_layers(L)
    bayes = np.array([chain.bayes_rate(s, t) for s, t in zip(source, target, strict=True)])
    question = HistoryQuestion(E, "top1", True, ())
    totals, _ = history_totals(
        train.experts, test.experts, question, orders=[order, L], supports=[1]
    )
    at_order = totals[0, 0, 0] / len(test)
    np.testing.assert_allclose(at_order, bayes, atol=0.01)

    result = history_hits(train, test, context="top1", names=["top1_accuracy"], seed=0)
    assert result.pairing == {"top1_accuracy": "top1"}
    selected = result.selected[0].sum(axis=0) / len(test)
    np.testing.assert_allclose(selected, bayes, atol=0.02)
    np.testing.assert_array_equal(result.longest[0].sum(axis=0), totals[0, 1, 0])

    single = hop_accuracy(train, test, pairing="top1", bootstrap=0)["top1_accuracy"].hop.value
    gain = selected - single[source, target]
    adjacent = (target == source + 1) & (source >= order - 1)
    if order == 1:
        assert np.abs(gain[adjacent]).max() < 0.01
    else:
        assert gain[adjacent].min() > 0.005
        assert gain[adjacent].mean() > 0.05


def test_all_layers_without_support_overfit() -> None:
    chain = Chain.draw(1, seed=4)
    train, test = trace(chain.sample(3_000, seed=5)), trace(chain.sample(20_000, seed=6))
    result = history_hits(train, test, context="top1", names=["top1_accuracy"], seed=0)
    last = layer_pairs(L).index((L - 2, L - 1))
    bayes = chain.bayes_rate(L - 2, L - 1)
    assert result.longest[0, :, last].sum() / len(test) < bayes - 0.02
    assert result.selected[0, :, last].sum() / len(test) > bayes - 0.01


def test_sets_as_contexts_see_what_first_choices_do_not() -> None:
    """The next first choice is decided by the second choice, which first choices do not show."""
    rng = np.random.default_rng(0)
    experts = rng.random((6000, 2, 6)).argsort(axis=2)[:, :, :2].astype(np.uint8)
    low, high = np.sort(experts[:, 0], axis=1).T
    experts[:, 1, 0] = (low + high) % 6
    experts[:, 1, 1] = (low + high + 1) % 6
    sides = trace(experts[:4000], 6), trace(experts[4000:], 6)
    names = ["top1_accuracy", "recall_at_2", "recall_at_4", "exact_set"]
    by_set = history_hits(*sides, context="set", names=names, seed=0)
    assert by_set.pairing == {n: "top1" if n == "top1_accuracy" else "any" for n in names}
    assert by_set.selected.sum(axis=(1, 2)).tolist() == [2000, 4000, 4000, 2000]
    by_first = history_hits(*sides, context="top1", names=names, seed=0)
    assert by_first.selected[0].sum() < 1000


def test_hits_stand_as_those_of_a_single_hop_do() -> None:
    """Measures, groups and pairs of the reference, with what the inner split selects."""
    rng = np.random.default_rng(1)
    pool = rng.random((6, 4, 5)).argsort(axis=2)[:, :, :2]
    experts = pool[rng.integers(0, 6, (160, 4)), np.arange(4)].astype(np.uint8)
    groups = {f"r{i}": f"prompt {i % 7}" for i in range(20)}
    train = trace(experts[:120], 5, requests=20, groups=groups)
    test = trace(experts[120:], 5, requests=20, groups=groups)
    names = ["exact_set", "recall_at_4", "top1_accuracy", "recall_at_2"]
    result = history_hits(train, test, context="set", names=names, seed=3)
    assert result.selected.shape == result.longest.shape == (4, 7, 6)
    assert result.names == tuple(names)

    inner, held_out = train.split(test=0.2, seed=3)
    requests = test.rows["request_id"].to_pylist()
    group = np.array([int(request[1:]) % 7 for request in requests])  # of the first requests' ids
    settings = [(m, s) for m in (1, 2, 3, 4) for s in (32, 16, 8, 4, 2, 1)]

    def hits(fitted: rs.Trace, measured: rs.Trace, pair: int, order: int, support: int) -> Any:
        source, target = (int(i[pair]) for i in pair_layers(4))
        return reference_history.history_hits(
            fitted.experts,
            measured.experts,
            5,
            source,
            target,
            context="set",
            order=order,
            min_support=support,
            best=[2, 4],
        )

    for pair in range(6):
        score = [hits(inner, held_out, pair, m, s).exact.sum() for m, s in settings]
        order, support = settings[int(np.argmax(score))]
        assert (result.selected_order[pair], result.selected_support[pair]) == (order, support)
        for kind, (m, s) in (("selected", (order, support)), ("longest", (4, 1))):
            expected = hits(train, test, pair, m, s)
            rows = [expected.exact, expected.best[4], expected.first, expected.best[2]]
            for got, row in zip(getattr(result, kind)[:, :, pair], rows, strict=True):
                np.testing.assert_array_equal(got, np.bincount(group, row, minlength=7))
    for s, support in enumerate(result.supports):
        for source in range(3):
            lengths = hits(
                train, test, layer_pairs(4).index((source, source + 1)), 4, support
            ).length
            shares = np.bincount(lengths, minlength=4) / len(test)
            np.testing.assert_allclose(result.resolved[s, source], shares)
    assert result.to_table().num_rows == 6
    assert result.to_dict()["orders"] == [1, 2, 3, 4]
    assert "selected" in str(result)


def test_prob_backs_off_to_the_latest_layers() -> None:
    train = np.array([[[0], [1], [2]], [[0], [1], [0]], [[1], [1], [1]], [[2], [2], [1]]])
    model = history(train, num_experts=3)
    assert model.prob([0, 1], k=1).tolist() == [0.5, 0.0, 0.5]
    third = pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert model.prob([2, 1], k=1) == third  # only layer 1 is known
    assert model.prob([0, 1], k=1, order=1) == third
    assert model.prob([0, 1], k=1, min_support=3) == third
    assert model.prob([0, 0], k=1).tolist() == [0.25, 0.5, 0.25]  # nothing is known
    assert model.prob([2], k=2).tolist() == [0.0, 1.0, 0.0]
    assert model.resolve([2, 1]).tokens.tolist() == [0, 1, 2]
    assert "all layers" in model.summary()


def test_exported_contexts() -> None:
    train = np.array([[[0, 1], [1, 2], [2, 0]], [[1, 0], [2, 1], [0, 1]], [[0, 2], [1, 2], [2, 1]]])
    whole = history(train, "set", num_experts=3).to_table()  # contexts of one layer at most
    assert set(whole["length"].to_pylist()) == {0, 1}
    table = history(train, "set", num_experts=3).to_table(1, 2).to_pylist()
    rows = [(r["length"], r["context"], r["tokens"]) for r in table]
    assert rows == [(0, [], 3), (1, [1, 2], 3), (2, [0, 1, 1, 2], 2), (2, [0, 2, 1, 2], 1)]
    assert [r["target_expert"] for r in table] == [[2, 0], [2, 0], [0, 2], [2]]
    assert [r["target_tokens"] for r in table] == [[2, 1], [2, 1], [1, 1], [1]]
    contexts = history(train, num_experts=3).contexts(1, order=1, min_support=2).to_pylist()
    assert [(r["context"], r["tokens"]) for r in contexts] == [([], 3), ([1], 2)]


def test_wrong_arguments_of_the_model() -> None:
    ids = np.array([[[0, 1], [1, 2]], [[2, 0], [1, 0]]])
    with pytest.raises(InvalidTypeError, match="num_experts: expected for an array, got None"):
        history(ids)
    with pytest.raises(InvalidValueError, match=r"experts\[0, 1, 1\] = 2, but num_experts is 2"):
        history(ids, num_experts=2)
    with pytest.raises(InvalidValueError, match="context: expected one of"):
        history(ids, "first", num_experts=3)
    with pytest.raises(InvalidValueError, match="train: expected at least 1 token"):
        history(ids[:0], num_experts=3)
    with pytest.raises(InvalidValueError, match=r"train\[1, 0\]: expected a set of experts"):
        history(np.array([[[0, 1]], [[1, 1]]]), "set", num_experts=3)
    with pytest.raises(InvalidValueError, match=r"train\.ordered"):
        history(trace(ids.astype(np.uint8), 3, requests=2, ordered=False))
    with pytest.raises(InvalidValueError, match="order: expected at least 1, got 0"):
        history(ids, num_experts=3, order=0)
    model = history(ids, num_experts=3)
    with pytest.raises(InvalidTypeError, match="prefix: expected integers, got float64"):
        model.prob([0.5], k=1)
    with pytest.raises(InvalidValueError, match=r"prefix\[0\] = 3, but num_experts is 3"):
        model.prob([3], k=1)
    with pytest.raises(InvalidValueError, match=r"prefix: expected 1 to 1 layers, got 2"):
        model.prob([0, 1], k=1)
    with pytest.raises(InvalidValueError, match=r"prefix: expected shape \[N \+ 1\]"):
        model.prob([[0, 1]], k=1)
    with pytest.raises(InvalidValueError, match=r"k: expected 1 to 1 from layer 0"):
        model.prob([0], k=2)
    with pytest.raises(InvalidValueError, match="target: expected a layer after source 1, got 0"):
        model.to_table(1, 0)
    sets = history(ids, "set", num_experts=3)
    with pytest.raises(InvalidValueError, match=r"prefix\[0\]: expected a set of experts"):
        sets.prob([[1, 1]], k=1)
    with pytest.raises(InvalidValueError, match=r"prefix: expected shape \[N \+ 1, 2\]"):
        sets.prob([1], k=1)


def test_wrong_arguments_of_the_hits() -> None:
    rng = np.random.default_rng(2)
    experts = rng.random((60, 3, 4)).argsort(axis=2)[:, :, :2].astype(np.uint8)
    good = trace(experts, requests=10)
    names = ["top1_accuracy"]
    with pytest.raises(InvalidTypeError, match="test: expected a Trace, got ndarray"):
        history_hits(good, experts, context="top1", names=names, seed=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="names: expected top1_accuracy"):
        history_hits(good, good, context="top1", names=["recall"], seed=0)
    with pytest.raises(InvalidValueError, match="names: expected at least one"):
        history_hits(good, good, context="top1", names=[], seed=0)
    with pytest.raises(InvalidValueError, match="at least 2 prompt groups"):
        history_hits(trace(experts, requests=1), good, context="top1", names=names, seed=0)
    with pytest.raises(InvalidValueError, match=r"train\.shape"):
        history_hits(trace(experts, 5), good, context="top1", names=names, seed=0)
    with pytest.raises(InvalidValueError, match="at least 2 layers"):
        history_hits(good, trace(experts[:, :1]), context="top1", names=names, seed=0)
    unknown = trace(experts, ordered=False, requests=10)
    with pytest.raises(InvalidValueError, match=r"train\.ordered"):
        history_hits(unknown, good, context="set", names=names, seed=0)
    by_set = history_hits(unknown, unknown, context="set", names=["recall_at_2"], seed=0)
    assert by_set.longest.shape == (1, 10, 3)
    with pytest.raises(InvalidValueError, match="orders: expected at least 1, got 0"):
        history_hits(good, good, context="top1", names=names, seed=0, orders=[0])


def test_wrong_arguments_of_the_counts() -> None:
    question = HistoryQuestion(4, "set", False, (2,))
    ids = np.array([[[0, 1], [2, 3]], [[1, 1], [2, 3]]])
    settings: dict[str, Any] = {"orders": [1], "supports": [1]}
    with pytest.raises(InvalidValueError, match=r"train\[1, 0\]: expected a set of experts, but 1"):
        history_totals(ids, ids, question, **settings)
    with pytest.raises(InvalidValueError, match=r"experts\[0, 1, 1\] = 3, but num_experts is 3"):
        history_totals(ids[:1], ids[:1], HistoryQuestion(3, "top1", True, ()), **settings)
    with pytest.raises(InvalidValueError, match="train: expected at least 1 token, got 0"):
        history_totals(ids[:0], ids, question, **settings)
    with pytest.raises(InvalidValueError, match=r"test: expected \[T, 2, 2\] as in train"):
        history_totals(ids[:1], ids[:, :1], question, **settings)
    with pytest.raises(InvalidTypeError, match="supports: expected an integer, got 1.5"):
        history_totals(ids[:1], ids[:1], question, orders=[1], supports=[1.5])  # type: ignore[list-item]


def test_one_layer_has_no_pairs() -> None:
    ids = np.zeros((3, 1, 1), np.uint8)
    question = HistoryQuestion(1, "top1", True, ())
    hits, resolved = history_totals(ids, ids, question, orders=[1, 2], supports=[1])
    assert hits.shape == (1, 2, 1, 0)
    assert resolved.shape == (1, 0, 1)


def test_groups_add_up_to_the_totals() -> None:
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 8, (3000, 6, 1)).astype(np.uint8)
    question = HistoryQuestion(8, "top1", True, ())
    options: dict[str, Any] = {"orders": [2], "supports": [4]}
    totals, _ = history_totals(ids[:2000], ids[2000:], question, **options)
    by_group, _ = history_group_hits(
        ids[:2000],
        ids[2000:],
        question,
        **options,
        chosen_order=np.full(15, 2),
        chosen_support=np.full(15, 4),
        groups=rng.integers(0, 3, 1000),
        num_groups=3,
    )
    np.testing.assert_array_equal(by_group.sum(axis=1), totals[0, 0])
    assert all(a.sum() != b.sum() for a, b in pairwise(by_group[0]))
