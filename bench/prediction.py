"""Held-out prediction of every layer from the history at every earlier one.

The claim: top-1 hits of the whole [L, L] matrix, contexts of first choices, the longest context
seen in training (all layers, support 1), every fifth token held out. Baselines:

- ``numpy informed``: contexts are numbered once per source layer (pandas.factorize, one layer
  longer at a time), test tokens are assigned to their longest context once, and each target layer
  costs one bincount and argmax over those contexts that are needed;
- ``pandas as written``: a group-by and a merge per layer pair and context length, on the first 8
  layers, where it ends in bearable time; ours then runs on the same 8 layers.

A few pairs are first held to the reference in ``counts/reference_history.py`` at 400 tokens, and
every baseline's matrix to ours at the tokens that are timed. One increment is one token at one
layer pair; the quiet figures are those of 1 million tokens.

The floor: every token's id at every target layer is read once in the order of the contexts, which
is T * L * (L - 1) / 2 random reads of a byte; ``numpy.take`` shows what one costs.

    python bench/prediction.py --shape mixtral --json bench/results/prediction.json
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from _compare import Row, chosen_shapes, compare, parser, print_rows, seconds, write_rows
from _workload import REPETITION, Shape, make_trace
from routestats.counts._history import HistoryQuestion, history_totals
from routestats.counts._plan import pair_layers
from routestats.counts.device.choice import choose_threads
from routestats.counts.reference import history as reference_history

Ids = npt.NDArray[np.integer[Any]]
Hits = npt.NDArray[np.int64]  # [L, L]

ORDERS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
SUPPORTS = (1, 2, 4, 8, 16, 32)
PANDAS_LAYERS = 8
MAX_DENSE_CELLS = 1 << 26  # contexts x experts of a table that bincount may fill
# Nanoseconds per token and layer pair, 1 million tokens, quiet Zen 3.
QUIET_NS = {"mixtral": 58.5, "qwen3": 133.9, "dsv3": 177.9}
MUST, AIM = 12.0, 30.0


def held_out(tokens: int) -> npt.NDArray[np.bool_]:
    held: npt.NDArray[np.bool_] = np.arange(tokens) % 5 == 4
    return held


def matrix(flat: npt.NDArray[np.int64], layers: int) -> Hits:
    hits = np.zeros((layers, layers), np.int64)
    hits[pair_layers(layers)] = flat
    return hits


def with_routestats(train: Ids, test: Ids, num_experts: int) -> Hits:
    layers = train.shape[1]
    question = HistoryQuestion(num_experts, "top1", True, ())
    hits, _ = history_totals(train, test, question, orders=[layers], supports=[1])
    return matrix(hits[0, 0, 0], layers)


def with_grid(train: Ids, test: Ids, num_experts: int) -> Hits:
    """All orders and supports; returns those of the single setting."""
    layers = train.shape[1]
    question = HistoryQuestion(num_experts, "top1", True, ())
    hits, _ = history_totals(train, test, question, orders=[*ORDERS, layers], supports=SUPPORTS)
    return matrix(hits[0, -1, 0], layers)


def with_numpy(first: npt.NDArray[np.int64], num_experts: int) -> Hits:
    """`first`: first choices, [L, T], layer by layer."""
    import pandas as pd

    layers, tokens = first.shape
    test = held_out(tokens)
    train = np.flatnonzero(~test)
    hits = np.zeros((layers, layers), np.int64)
    for source in range(layers - 1):
        contexts = [np.zeros(tokens, np.int64)]  # by length
        for layer in range(source, -1, -1):
            contexts.append(pd.factorize(contexts[-1] * num_experts + first[layer])[0])
        left = np.flatnonzero(test)
        parts = []
        for code in reversed(contexts):
            count = code.max() + 1
            seen = np.zeros(count, bool)
            seen[code[train]] = True
            now = left[seen[code[left]]]
            if len(now) == 0:
                continue
            needed = np.zeros(count, bool)
            needed[code[now]] = True
            fitted = train[needed[code[train]]]
            number = np.cumsum(needed) - 1
            parts.append((now, number[code[now]], fitted, number[code[fitted]], number[-1] + 1))
            left = left[~seen[code[left]]]
            if len(left) == 0:
                break
        for target in range(source + 1, layers):
            for now, now_context, fitted, context, count in parts:
                keys = context * num_experts + first[target, fitted]
                best = most_frequent(keys, count, num_experts)
                hits[source, target] += (best[now_context] == first[target, now]).sum()
    return hits


def most_frequent(keys: npt.NDArray[np.int64], contexts: int, num_experts: int) -> Any:
    """The most frequent expert of each context, from context * E + expert."""
    if contexts * num_experts <= MAX_DENSE_CELLS:
        table = np.bincount(keys, minlength=contexts * num_experts)
        return table.reshape(contexts, num_experts).argmax(axis=1)
    cells, counts = np.unique(keys, return_counts=True)
    order = np.lexsort((cells % num_experts, -counts, cells // num_experts))
    cells = cells[order]
    _, starts = np.unique(cells // num_experts, return_index=True)
    best = np.zeros(contexts, np.int64)
    best[cells[starts] // num_experts] = cells[starts] % num_experts
    return best


def with_pandas(first: npt.NDArray[np.int64]) -> Hits:
    import pandas as pd

    layers, tokens = first.shape
    test = held_out(tokens)
    frame = pd.DataFrame({f"l{layer}": first[layer] for layer in range(layers)})
    hits = np.zeros((layers, layers), np.int64)
    for source in range(layers - 1):
        for target in range(source + 1, layers):
            left = frame[test]
            for length in range(source + 1, -1, -1):
                on = [f"l{layer}" for layer in range(source + 1 - length, source + 1)]
                goal = f"l{target}"
                counted = frame[~test].groupby([*on, goal]).size().reset_index(name="n")
                counted = counted.sort_values(["n", goal], ascending=[False, True])
                if length == 0:
                    hits[source, target] += (left[goal] == counted[goal].iloc[0]).sum()
                    break
                best = counted.drop_duplicates(on)[[*on, goal]].rename(columns={goal: "best"})
                merged = left.merge(best, on=on, how="left")
                found = merged["best"].notna()
                hits[source, target] += (merged["best"] == merged[goal]).sum()
                left = merged.loc[~found].drop(columns="best")
                if left.empty:
                    break
    return hits


def require_reference(shape: Shape, repetition: str) -> None:
    experts = make_trace(shape, 400, repetition=repetition)
    test = held_out(len(experts))
    ours = with_routestats(experts[~test], experts[test], shape.E)
    last = shape.L - 1
    for source, target in ((0, 1), (0, last), (last // 2, last // 2 + 1), (last - 1, last)):
        expected = reference_history.history_hits(
            experts[~test],
            experts[test],
            shape.E,
            source,
            target,
            context="top1",
            order=shape.L,
            min_support=1,
        )
        if ours[source, target] != expected.first.sum():
            sys.exit(f"prediction: routestats differs from the reference at {source}, {target}")


def require_equal(name: str, ours: Hits, theirs: Hits) -> None:
    if not np.array_equal(ours, theirs):
        layers = np.argwhere(ours != theirs)[0]
        sys.exit(f"prediction: {name} and routestats differ at layers {layers[0]}, {layers[1]}")


def kept(method: Callable[[], Hits], results: dict[str, Hits], name: str) -> Callable[[], object]:
    """`method`, which leaves its result in `results`, so that checking costs no run of its own."""

    def run() -> None:
        results[name] = method()

    return run


def floor_seconds(first: npt.NDArray[Any]) -> float:
    """T x P reads of a byte in a random order, divided between the threads."""
    layers, tokens = first.shape
    order = np.random.default_rng(0).permutation(tokens).astype(np.intp)
    once = min(seconds(lambda: np.take(first[0], order)) for _ in range(5))
    return once * float(layers * (layers - 1)) / 2 / choose_threads(None)


def run_shape(shape: Shape, repetition: str, tokens: int, rounds: int) -> list[Row]:
    require_reference(shape, repetition)
    experts = make_trace(shape, tokens, repetition=repetition)
    test = held_out(tokens)
    train_ids, test_ids = experts[~test], experts[test]
    narrow = np.ascontiguousarray(experts[:, :, 0].T)
    first = narrow.astype(np.int64)
    pairs = shape.L * (shape.L - 1) // 2

    results: dict[str, Hits] = {}
    rows = compare(
        "history",
        shape,
        repetition,
        tokens,
        kept(lambda: with_routestats(train_ids, test_ids, shape.E), results, "ours"),
        {"numpy informed": kept(lambda: with_numpy(first, shape.E), results, "numpy")},
        rounds=rounds,
        increments=float(tokens * pairs),
        quiet_ns={"numpy informed": QUIET_NS[shape.name]},
    )
    require_equal("numpy informed", results["ours"], results["numpy"])
    floor = floor_seconds(narrow)
    print(f"  floor {floor * 1e3:.0f} ms, {floor / rows[0].ours_s:.0%} of it reached")

    require_equal("the grid", results["ours"], with_grid(train_ids, test_ids, shape.E))
    grid = min(seconds(lambda: with_grid(train_ids, test_ids, shape.E)) for _ in range(rounds))
    settings = (len(ORDERS) + 1) * len(SUPPORTS)
    ratio = rows[0].baseline_s / grid
    rows.append(
        replace(
            rows[0],
            claim=f"history, {settings} settings",
            baseline="numpy informed, one setting",
            ours_s=grid,
            ratio=ratio,
            ratio_low=ratio,
            ratio_high=ratio,
        )
    )
    print_rows(rows[-1:])

    short = slice(0, PANDAS_LAYERS)
    few = max(1, min(tokens, 50_000) // 5 * 5)
    cut = held_out(few)
    part = experts[:few, short]
    sides = part[~cut], part[cut]
    rows += compare(
        f"history, {PANDAS_LAYERS} layers",
        shape,
        repetition,
        few,
        kept(lambda: with_routestats(*sides, shape.E), results, "ours"),
        {"pandas as written": kept(lambda: with_pandas(first[short, :few]), results, "pandas")},
        rounds=rounds,
    )
    require_equal("pandas as written", results["ours"], results["pandas"])
    return rows


def main() -> int:
    options = parser(__doc__.splitlines()[0], tokens=200_000)
    options.add_argument("--repetition", choices=[*REPETITION, "all"], default="all")
    options.set_defaults(rounds=3)
    arguments = options.parse_args()
    tokens, rounds = arguments.tokens, arguments.rounds
    if arguments.quick:
        tokens, rounds = min(tokens, 20_000), 1
    levels = list(REPETITION) if arguments.repetition == "all" else [arguments.repetition]
    rows: list[Row] = []
    for shape in chosen_shapes(arguments.shape):
        for repetition in levels:
            rows += run_shape(shape, repetition, tokens, rounds)
    write_rows(arguments.json, rows)
    slow = [row for row in rows if row.claim == "history" and not row.void and row.ratio < MUST]
    for row in slow:
        print(
            f"{row.shape} {row.repetition}: {row.ratio:.1f}x, expected {MUST:.0f}x, aim {AIM:.0f}x",
            file=sys.stderr,
        )
    return 1 if slow and not arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
