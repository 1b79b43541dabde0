"""The history predictor: what tokens with the same past did next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.arguments import check_integer
from routestats.counts import _source
from routestats.counts._history import Context, check_context
from routestats.counts._plan import layer_pairs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.result import Result, plain
from routestats.shape import RouteShape
from routestats.stats._base.contingency import Floats
from routestats.trace import Trace

Ids = npt.NDArray[np.integer[Any]]
# Layers of a context, its experts, and the training tokens that have it.
_ContextRow = tuple[int, npt.NDArray[np.int32], npt.NDArray[np.intp]]


class ResolvedContext(NamedTuple):
    """The context that a prefix resolves to: its number of layers, and who has it in training."""

    length: int
    tokens: npt.NDArray[np.intp]


class History(Result):
    """Predicts later layers from a token's history; made by `history`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    context : str
        ``top1``: contexts of first choices; ``set``: of sets.
    order : int
        Most layers in a context.
    min_support : int
        Training tokens that a context needs.
    train_tokens : int
    """

    def __init__(
        self,
        experts: Ids,
        *,
        shape: RouteShape,
        layer_ids: tuple[int, ...],
        context: Context,
        order: int,
        min_support: int,
    ) -> None:
        self.shape = shape
        self.layer_ids = layer_ids
        self.context = context
        self.order = order
        self.min_support = min_support
        self.train_tokens = len(experts)
        self._first = np.ascontiguousarray(experts[:, :, 0].T)  # [L, T]
        # What contexts are made of, [L, T, 1 or K]; sets in ascending order.
        self._symbols: Ids = (
            self._first[:, :, None]
            if context == "top1"
            else np.sort(experts, axis=2).transpose(1, 0, 2)
        )

    def prob(
        self,
        prefix: npt.ArrayLike,
        k: int,
        *,
        order: int | None = None,
        min_support: int | None = None,
    ) -> Floats:
        """Distribution over the first choice `k` layers on, given the experts at layers 0..N.

        Parameters
        ----------
        prefix : array of integers, shape [N + 1], or [N + 1, K] where contexts are sets
            Experts at layers 0..N; the order within a set does not matter.
        k : int
            The target is layer N + k, k >= 1.
        order, min_support : int, optional
            In place of those that the model was made with.

        Returns
        -------
        ndarray of float64, shape [E]
            Shares of the training tokens that have the longest context with enough support.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If the prefix has another shape or dtype, an id is not below E, a set names an expert
            twice, or there is no layer N + k.
        """
        symbols = self._check_prefix(prefix)
        target = self._check_target(len(symbols) - 1, k)
        tokens = self._resolve(symbols, order, min_support).tokens
        counts = np.bincount(self._first[target, tokens], minlength=self.shape.num_experts)
        shares: Floats = counts / len(tokens)
        return shares

    def resolve(
        self,
        prefix: npt.ArrayLike,
        *,
        order: int | None = None,
        min_support: int | None = None,
    ) -> ResolvedContext:
        """The context that decides for `prefix`: how many layers, and which training tokens.

        Parameters and errors as of `prob`.
        """
        return self._resolve(self._check_prefix(prefix), order, min_support)

    def _resolve(self, symbols: Ids, order: int | None, min_support: int | None) -> ResolvedContext:
        longest = min(_limit("order", order, self.order), len(symbols))
        support = _limit("min_support", min_support, self.min_support)
        source = len(symbols) - 1
        tokens = np.arange(self.train_tokens)
        for length in range(longest):
            layer = source - length
            same = (self._symbols[layer, tokens] == symbols[layer]).all(axis=1)
            if np.count_nonzero(same) < support:
                return ResolvedContext(length, tokens)
            tokens = tokens[same]
        return ResolvedContext(longest, tokens)

    def contexts(
        self, source: int, *, order: int | None = None, min_support: int | None = None
    ) -> pa.Table:
        """All contexts at layer `source` that enough training tokens have.

        Returns
        -------
        pyarrow.Table
            ``length`` (layers), ``context`` (experts of the latest `length` layers, the latest
            last: one for each layer, or sets of K one after the other in ascending order),
            ``tokens`` (training tokens that have it). By length, then by context.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If there is no such layer, or `order` or `min_support` is no number from 1.
        """
        return _table_of(
            self._context_rows(_layer("source", source, self.shape), order, min_support)
        )

    def to_table(
        self,
        source: int | None = None,
        target: int | None = None,
        *,
        order: int | None = None,
        min_support: int | None = None,
    ) -> pa.Table:
        """The fitted table from layer `source` to layer `target`: `contexts`, and what came next.

        Without layers it is that of all layer pairs, by hop and then by source, with the columns
        ``source`` and ``target`` before the others. `order` is then 1 unless it is given: the
        contexts of many layers can be more than the tokens.

        Returns
        -------
        pyarrow.Table
            As of `contexts`, and ``target_expert`` and ``target_tokens``: the first choices at the
            target among the context's training tokens, the most frequent first (of equals the
            lowest id), and how many of the tokens chose each.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            As of `contexts`, and if `target` is not a layer after `source`, or one is given alone.
        """
        if source is None and target is None:
            return self._of_all_pairs(1 if order is None else order, min_support)
        if source is None or target is None:
            alone = "source" if target is None else "target"
            raise InvalidTypeError(f"{alone}: expected both source and target, or neither")
        source = _layer("source", source, self.shape)
        target = _layer("target", target, self.shape)
        if target <= source:
            raise InvalidValueError(f"target: expected a layer after source {source}, got {target}")
        return self._choices_at(target, self._context_rows(source, order, min_support))

    def _choices_at(self, target: int, rows: list[_ContextRow]) -> pa.Table:
        experts, counts = [], []
        for _, _, tokens in rows:
            number = np.bincount(self._first[target, tokens], minlength=self.shape.num_experts)
            ranked = np.argsort(-number, kind="stable")[: np.count_nonzero(number)]
            experts.append(ranked)
            counts.append(number[ranked])
        return (
            _table_of(rows)
            .append_column("target_expert", pa.array(experts, pa.list_(pa.int32())))
            .append_column("target_tokens", pa.array(counts, pa.list_(pa.int64())))
        )

    def _of_all_pairs(self, order: int, min_support: int | None) -> pa.Table:
        tables: dict[tuple[int, int], pa.Table] = {}
        for source in range(self.shape.num_layers - 1):
            rows = self._context_rows(source, order, min_support)
            for target in range(source + 1, self.shape.num_layers):
                table = self._choices_at(target, rows)
                table = table.add_column(0, "target", pa.array(np.full(len(table), target)))
                table = table.add_column(0, "source", pa.array(np.full(len(table), source)))
                tables[source, target] = table
        if not tables:
            raise InvalidValueError("history: expected at least 2 layers, got 1")
        return pa.concat_tables(tables[pair] for pair in layer_pairs(self.shape.num_layers))

    def to_dict(self) -> dict[str, Any]:
        """What the model is, and the rows of `to_table` as ``contexts``."""
        names = ("shape", "layer_ids", "context", "order", "min_support", "train_tokens")
        values = {name: plain(getattr(self, name)) for name in names}
        return {**values, "contexts": self.to_table().to_pylist()}

    def _context_rows(
        self, source: int, order: int | None, min_support: int | None
    ) -> list[_ContextRow]:
        longest = min(_limit("order", order, self.order), source + 1)
        support = _limit("min_support", min_support, self.min_support)
        tokens = np.arange(self.train_tokens)
        rows = [(0, np.empty(0, np.int32), tokens)]
        for length in range(1, longest + 1):
            latest = self._symbols[source + 1 - length : source + 1, tokens]  # [length, t, width]
            flat = latest.transpose(1, 0, 2).reshape(len(tokens), -1).astype(np.int32)
            contexts, which, number = np.unique(
                flat, axis=0, return_inverse=True, return_counts=True
            )
            which = which.reshape(-1)
            parts = np.split(tokens[np.argsort(which, kind="stable")], np.cumsum(number)[:-1])
            rows += [
                (length, context, part)
                for context, part in zip(contexts, parts, strict=True)
                if len(part) >= support
            ]
            # A longer context has no more tokens than the part of it that is shorter.
            tokens = np.sort(tokens[number[which] >= support])
            if len(tokens) == 0:
                break
        return rows

    def summary(self) -> str:
        """One line for a terminal."""
        longest = "all" if self.order >= self.shape.num_layers else str(self.order)
        return (
            f"history ({self.context}), {self.shape}: {longest} layers, at least "
            f"{self.min_support} training tokens, fitted on {self.train_tokens:,}"
        )

    def _check_prefix(self, prefix: npt.ArrayLike) -> Ids:
        """`prefix` as symbols [N + 1, 1 or K]."""
        try:
            ids = np.asarray(prefix)
        except ValueError:
            raise InvalidValueError("prefix: got rows of unequal lengths") from None
        size = self.shape.top_k
        if ids.dtype.kind not in "iu":
            raise InvalidTypeError(f"prefix: expected integers, got {ids.dtype}")
        if self.context == "top1":
            if ids.ndim != 1:
                raise InvalidValueError(
                    f"prefix: expected shape [N + 1] of first choices, got {list(ids.shape)}; a "
                    "model of sets comes from history(train, 'set')"
                )
            ids = ids[:, None]
        elif ids.ndim != 2 or ids.shape[1] != size:
            raise InvalidValueError(
                f"prefix: expected shape [N + 1, {size}], got {list(ids.shape)}"
            )
        if not 1 <= len(ids) < self.shape.num_layers:
            raise InvalidValueError(
                f"prefix: expected 1 to {self.shape.num_layers - 1} layers, got {len(ids)}"
            )
        for layer, slot in np.argwhere((ids < 0) | (ids >= self.shape.num_experts)):
            place = f"[{layer}]" if self.context == "top1" else f"[{layer}, {slot}]"
            raise InvalidValueError(
                f"prefix{place} = {ids[layer, slot]}, but num_experts is {self.shape.num_experts}"
            )
        ids = np.sort(ids, axis=1)
        for layer in np.flatnonzero((ids[:, 1:] == ids[:, :-1]).any(axis=1)):
            raise InvalidValueError(
                f"prefix[{layer}]: expected a set of experts, got {ids[layer].tolist()}"
            )
        return ids

    def _check_target(self, source: int, k: int) -> int:
        k = check_integer("k", k, 1)
        last = self.shape.num_layers - 1
        if k > last - source:
            raise InvalidValueError(
                f"k: expected 1 to {last - source} from layer {source} of 0..{last}, got {k}"
            )
        return source + k


def _table_of(rows: list[_ContextRow]) -> pa.Table:
    return pa.table(
        {
            "length": pa.array([length for length, _, _ in rows], pa.int32()),
            "context": pa.array([context for _, context, _ in rows], pa.list_(pa.int32())),
            "tokens": pa.array([len(tokens) for _, _, tokens in rows], pa.int64()),
        }
    )


def history(
    train: Trace | npt.ArrayLike,
    context: str = "top1",
    *,
    order: int | None = None,
    min_support: int = 1,
    num_experts: int | None = None,
) -> History:
    """Fit the history predictor: keep what training tokens chose, to be looked up by context.

    A token's context at layer N is what it chose at the latest layers up to N: its first choices,
    or its sets. A prediction is what the training tokens with the longest context that `prefix`
    and enough of them share chose at the target; the latest layers are kept. The context of no
    layers remains: then all training tokens are asked, which is the marginal predictor.

    Parameters
    ----------
    train : Trace, or array of integers of shape [T, L, K]
        An array's slot 0 must be the first choice.
    context : {"top1", "set"}
    order : int, optional
        Most layers in a context; by default all.
    min_support : int
        Training tokens that a context needs. With 1 and all layers the predictor overfits; see
        `routestats.stats.history_hits`, which selects both on an inner split.
    num_experts : int, optional
        Experts E per layer; needed for an array.

    Returns
    -------
    History

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If the training side is empty or no integer array, an id is not below E, an expert stands
        twice in a set, or the order of the experts is unknown.

    Examples
    --------
    >>> train = np.array([[[0], [1], [2]], [[0], [1], [0]], [[1], [1], [1]]])
    >>> history(train, num_experts=3).prob([0, 1], k=1)
    array([0.5, 0. , 0.5])
    """
    context = check_context(context)
    if num_experts is not None:
        num_experts = check_integer("num_experts", num_experts, 1)
    layer_ids: Sequence[int]
    if isinstance(train, Trace):
        if not train.ordered:
            raise InvalidValueError(
                "train.ordered: expected experts in order of weight, which first choices need, "
                "got a trace of unknown order"
            )
        shape, layer_ids, experts = train.shape, train.layer_ids, train.experts
        if num_experts not in (None, shape.num_experts):
            raise InvalidValueError(
                f"num_experts: the trace has {shape.num_experts}, got {num_experts}"
            )
    else:
        experts = _source.as_ids(train)
        if num_experts is None:
            raise InvalidTypeError("num_experts: expected for an array, got None")
        shape = RouteShape(experts.shape[1], num_experts, experts.shape[2])
        layer_ids = range(shape.num_layers)
        for place in np.argwhere((experts < 0) | (experts >= num_experts))[:1]:
            where = ", ".join(str(i) for i in place)
            raise InvalidValueError(
                f"experts[{where}] = {experts[tuple(place)]}, but num_experts is {num_experts}"
            )
    if len(experts) == 0:
        raise InvalidValueError("train: expected at least 1 token, got 0")
    if context == "set":
        ordered = np.sort(experts, axis=2)
        for token, layer, _ in np.argwhere(ordered[:, :, 1:] == ordered[:, :, :-1])[:1]:
            raise InvalidValueError(
                f"train[{token}, {layer}]: expected a set of experts, "
                f"got {experts[token, layer].tolist()}"
            )
    return History(
        experts,
        shape=shape,
        layer_ids=tuple(int(i) for i in layer_ids),
        context=context,
        order=shape.num_layers if order is None else _limit("order", order, 1),
        min_support=_limit("min_support", min_support, 1),
    )


def _limit(name: str, value: int | None, default: int) -> int:
    return default if value is None else check_integer(name, value, 1)


def _layer(name: str, value: int, shape: RouteShape) -> int:
    layer = check_integer(name, value, 0)
    if layer >= shape.num_layers:
        raise InvalidValueError(f"{name}: expected 0 to {shape.num_layers - 1}, got {value}")
    return layer
