"""Held-out hits of the history predictor, per prompt group: `longest` and `selected`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.arguments import check_integer, check_integers, check_share, is_iterable
from routestats.counts._history import (
    Context,
    HistoryQuestion,
    ascending,
    check_context,
    history_group_hits,
    history_totals,
)
from routestats.counts._plan import pair_layers
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import check_sides
from routestats.stats._base.row_order import rows_within
from routestats.stats._base.units import Units
from routestats.stats._predictors.measure import EXACT, TOP1, Measure
from routestats.trace import Trace

ORDERS = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # and all layers
SUPPORTS = (1, 2, 4, 8, 16, 32)
INNER_TEST = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class HistoryHits(Result):
    """Hits of prediction from history; made by `history_hits`.

    The P = L * (L - 1) / 2 layer pairs are by hop, then by source: (0, 1), (1, 2),
    ..., (0, 2), ...; the G groups by domain, then by the id of their first request (2 before 10).

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    context : str
        ``top1``: contexts of first choices; ``set``: of sets.
    pairing : dict from measure to str
        Which of a target layer's choices are counted after a context, and predicted: the first
        (``top1``) for ``top1_accuracy``, all K (``any``) for the others.
    names : tuple of str, length m
        Measures: ``top1_accuracy``, ``recall_at_<M>``, ``exact_set``.
    train_tokens, test_tokens, inner_test_tokens : int
    seed : int
        Of the inner split of the training side.
    orders, supports : tuple of int
        Those that were tried; the last order is L, all layers.
    longest : ndarray of int64, shape [m, G, P]
        Hits with the longest context seen in training at all. It overfits: show it beside
        `selected`, not alone.
    selected : ndarray of int64, shape [m, G, P]
        Hits with the order and the minimum support that predicted best on the inner split, by the
        first of `names`; of equals the smaller order, then the greater support.
    selected_order, selected_support : ndarray of int64, shape [P]
    resolved : ndarray of float64, shape [supports, L - 1, L]
        Share of the test tokens whose longest context with so much support has 0..L-1 layers, at
        each source layer 0..L-2; a limit on the order moves what is longer to that limit.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    context: Context
    pairing: dict[str, str]
    names: tuple[str, ...]
    train_tokens: int
    test_tokens: int
    inner_test_tokens: int
    seed: int
    orders: tuple[int, ...]
    supports: tuple[int, ...]
    longest: npt.NDArray[np.int64]
    selected: npt.NDArray[np.int64]
    selected_order: npt.NDArray[np.int64]
    selected_support: npt.NDArray[np.int64]
    resolved: npt.NDArray[np.float64]

    def to_table(self) -> pa.Table:
        """One row per layer pair: source, target, selected order and support, and hits."""
        source, target = pair_layers(self.shape.num_layers)
        columns = {
            "source": source,
            "target": target,
            "selected_order": self.selected_order,
            "selected_support": self.selected_support,
        }
        for kind in ("longest", "selected"):
            for name, hits in zip(self.names, getattr(self, kind), strict=True):
                columns[f"{kind}_{name}_hits"] = hits.sum(axis=0)
        return pa.table(columns)

    def summary(self) -> str:
        """A few lines for a terminal: the means over adjacent layers."""
        source, target = pair_layers(self.shape.num_layers)
        adjacent = target - source == 1
        lines = [
            f"prediction from history ({self.context}), {self.shape}: fitted on "
            f"{self.train_tokens:,} tokens, measured on {self.test_tokens:,}; mean over adjacent "
            "layers"
        ]
        for index, name in enumerate(self.names):
            measure = Measure.named(name)
            scale = self.test_tokens * (measure.most(self.shape.top_k) if measure else 1)
            longest, selected = (
                hits[index].sum(axis=0)[adjacent].mean() / scale
                for hits in (self.longest, self.selected)
            )
            pairing = f"({self.pairing[name]})"
            lines.append(
                f"  {name:16s} {pairing:6s} selected {selected:6.1%}   longest {longest:6.1%}"
            )
        order, support = (
            int(np.median(x[adjacent])) for x in (self.selected_order, self.selected_support)
        )
        lines.append(f"  selected, median: {order} layers, at least {support} training tokens")
        return "\n".join(lines)


def history_hits(
    train: Trace,
    test: Trace,
    *,
    context: str,
    names: Sequence[str],
    seed: int,
    orders: Sequence[int] = ORDERS,
    supports: Sequence[int] = SUPPORTS,
    inner_test: float = INNER_TEST,
    threads: int | None = None,
) -> HistoryHits:
    """Predict every layer from the experts at all layers up to every earlier one.

    Parameters
    ----------
    train, test : Trace
        Of one shape and layers; tokens of different prompts, see `Trace.split`.
    context : {"top1", "set"}
    names : sequence of str
        Measures, in the order of the results: ``top1_accuracy``, ``recall_at_<M>``, ``exact_set``.
    seed : int
        Of the inner split, by prompt group and within each domain.
    orders, supports : sequence of int
        To select from; all layers are added to the orders, and 1 to the supports.
    inner_test : float
        Share of the training groups that selection measures on.
    threads : int, optional

    Raises
    ------
    InvalidTypeError
        If a side is no trace, or a number no integer.
    InvalidValueError
        If a name is unknown or given twice, there is one layer only, a side is empty, shapes or
        layers differ, the order of the experts is needed and unknown, or `train` has one prompt
        group only.

    Notes
    -----
    Both sides' experts are held in memory, and during the selection a copy of the training side's,
    parted in two.
    """
    context = check_context(context)
    seed = check_integer("seed", seed, 0)
    inner_test = check_share("inner_test", inner_test)
    measures = _check(train, test, context, names)
    layers = test.shape.num_layers
    return measure_history(
        train,
        test,
        train.split(test=inner_test, seed=seed),
        context=context,
        measures=measures,
        seed=seed,
        orders=(*(m for m in ascending("orders", orders) if m < layers), layers),
        supports=ascending("supports", (1, *check_integers("supports", supports, 1))),
        threads=threads,
    )


def measure_history(
    train: Trace,
    test: Trace,
    inner: tuple[Trace, Trace],
    *,
    context: Context,
    measures: Sequence[Measure],
    seed: int,
    orders: Sequence[int] | None = None,
    supports: Sequence[int] = SUPPORTS,
    threads: int | None = None,
) -> HistoryHits:
    """`history_hits` of arguments that were checked, with the inner split of `train` given."""
    shape = test.shape
    if orders is None:
        orders = (*(m for m in ORDERS if m < shape.num_layers), shape.num_layers)
    question = _question(shape, context, measures)
    order, support = _select(train, inner, context, measures[0], orders, supports, threads)
    units = Units.whole(test)
    rows = [_place(measure, question) for measure in measures]

    def hits(
        order: npt.NDArray[np.int64],
        support: npt.NDArray[np.int64],
        orders: Sequence[int],
        supports: Sequence[int],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return history_group_hits(
            train.experts,
            test.experts,
            question,
            orders=orders,
            supports=supports,
            chosen_order=order,
            chosen_support=support,
            groups=units.of_row,
            num_groups=len(units),
            threads=threads,
        )

    everything = np.full_like(order, shape.num_layers)
    # All supports, for the sake of `resolved`.
    longest, resolved = hits(everything, np.ones_like(order), [shape.num_layers], supports)
    selected, _ = hits(order, support, np.unique(order).tolist(), np.unique(support).tolist())
    return HistoryHits(
        shape=shape,
        layer_ids=tuple(int(i) for i in test.layer_ids),
        context=context,
        pairing={measure.name: measure.pairing for measure in measures},
        names=tuple(measure.name for measure in measures),
        train_tokens=len(train),
        test_tokens=len(test),
        inner_test_tokens=len(inner[1]),
        seed=seed,
        orders=tuple(orders),
        supports=tuple(supports),
        longest=longest[rows],
        selected=selected[rows],
        selected_order=order,
        selected_support=support,
        resolved=resolved / len(test),
    )


def _select(
    train: Trace,
    inner: tuple[Trace, Trace],
    context: Context,
    measure: Measure,
    orders: Sequence[int],
    supports: Sequence[int],
    threads: int | None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Order and support with most hits of `measure` for each layer pair, each [P]."""
    question = _question(train.shape, context, (measure,))
    # Taken of what is held: reading the two parts would decode the training side twice again.
    fitted, held_out = (train.experts[rows_within(train, side)] for side in inner)
    hits, _ = history_totals(
        fitted, held_out, question, orders=orders, supports=supports, threads=threads
    )
    of_measure = hits[:, :, _place(measure, question)]
    # Preferred settings first, since argmax takes the first of equals: small m, then great support.
    preferred = of_measure[::-1].transpose(1, 0, 2).reshape(len(orders) * len(supports), -1)
    best = preferred.argmax(axis=0)
    order = np.array(orders, np.int64)[best // len(supports)]
    support = np.array(supports, np.int64)[::-1][best % len(supports)]
    return order, support


def _question(shape: RouteShape, context: Context, measures: Sequence[Measure]) -> HistoryQuestion:
    sizes = {measure.size for measure in measures if measure.size is not None}
    if sizes or EXACT in measures:
        sizes.add(shape.top_k)
    best = (shape.top_k, *sorted(sizes - {shape.top_k})) if sizes else ()
    return HistoryQuestion(shape.num_experts, context, TOP1 in measures, best)


def _place(measure: Measure, question: HistoryQuestion) -> int:
    """Where `measure` stands among those of `question`."""
    if measure.size is not None:
        return int(question.top1) + question.best.index(measure.size)
    return 0 if measure == TOP1 else question.measures - 1


def _check(train: Trace, test: Trace, context: str, names: Sequence[str]) -> tuple[Measure, ...]:
    """The measures that `names` name, where everything else is in order as well."""
    if isinstance(names, str) or not is_iterable(names):
        raise InvalidTypeError(f"names: expected names of measures, got {names!r}")
    names = tuple(names)
    for side, trace in (("train", train), ("test", test)):
        if not isinstance(trace, Trace):
            raise InvalidTypeError(f"{side}: expected a Trace, got {type(trace).__name__}")
    check_sides(train, test)
    if not names:
        raise InvalidValueError("names: expected at least one measure, got none")
    measures = []
    for name in names:
        measure = Measure.named(str(name))
        if measure is None or (measure.size or 0) > test.shape.num_experts:
            raise InvalidValueError(
                f"names: expected top1_accuracy, recall_at_<M> (M from 1 to "
                f"{test.shape.num_experts} experts) or exact_set, got {name!r}"
            )
        measures.append(measure)
    if len(set(names)) < len(names):
        raise InvalidValueError(f"names: expected each measure once, got {', '.join(names)}")
    need_order = context == "top1" or TOP1 in measures
    for side, trace in (("train", train), ("test", test)):
        if len(trace) == 0:
            raise InvalidValueError(f"{side}: expected at least 1 token, got 0")
        if need_order and not trace.ordered:
            raise InvalidValueError(
                f"{side}.ordered: expected experts in order of weight, which first choices need, "
                "got a trace of unknown order (context='set' without top1_accuracy does without)"
            )
    return tuple(measures)
