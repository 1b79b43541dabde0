"""Arguments that cannot be: one line that names them, whatever statistic is asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from stats_cases import make_trace

import routestats as rs
from routestats import report
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.trace import join, sort_by_weight

TRACE, _ = make_trace(0)
COUNTS = rs.count(TRACE)
S = rs.stats


def untyped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, for arguments that its types refuse."""
    return function


def history_hits(**arguments: Any) -> S.HistoryHits:
    given: dict[str, Any] = {"context": "top1", "names": ["exact_set"], "seed": 0}
    return S.history_hits(TRACE, TRACE, **{**given, **arguments})


@pytest.mark.parametrize("statistic", [S.expert_load, S.coactivation, S.correlation])
@pytest.mark.parametrize("counts", [None, TRACE, 3])
def test_counts_that_are_none(statistic: Callable[[Any], Any], counts: Any) -> None:
    for ask in (statistic, partial(S.affinity, src=0, dst=1)):
        with pytest.raises(InvalidTypeError, match=r"counts: expected RouteCounts, got "):
            ask(counts)


@pytest.mark.parametrize(
    ("ask", "names"),
    [
        (partial(S.paths, TRACE), ("simulations", "seed", "top", "windows")),
        (partial(S.information, TRACE), ("hops", "null_draws", "seed", "confidence")),
        (partial(S.compare_domains, TRACE), ("hops", "permutations", "seed")),
        (partial(S.transfer, TRACE), ("test", "seed", "bootstrap", "confidence")),
        (partial(S.repetition, TRACE), ("bootstrap", "seed", "confidence")),
        (partial(S.segment_routing, TRACE, 4), ("seed", "confidence", "capacity")),
        (partial(S.specialization, TRACE), ("min_tokens", "max_ids", "top", "seed", "confidence")),
        (partial(S.agreement, TRACE, TRACE), ("bootstrap", "seed", "confidence")),
        (partial(S.hop_accuracy, TRACE, TRACE), ("bootstrap", "seed", "confidence", "predictors")),
        (history_hits, ("names", "seed", "inner_test", "orders", "supports")),
        (partial(S.correlation, COUNTS), ("pairs",)),
        (partial(S.coactivation, COUNTS), ("top",)),
        (partial(S.affinity, COUNTS, dst=1), ("src",)),
        (TRACE.split, ("test", "seed")),
        (TRACE.filter, ("domain", "phase", "layers", "requests")),
        (rs.count_paths(TRACE).coverage, ("n",)),
    ],
)
def test_arguments_of_the_wrong_kind(ask: Callable[..., Any], names: tuple[str, ...]) -> None:
    optional = ("domain", "phase", "layers", "requests", "capacity", "windows")
    for name in names:
        values: list[Any] = [np.array([1.5]), 1.5j, {}.items]
        values += [] if name in optional else [None]
        values += [] if name in ("confidence", "test", "inner_test", "requests") else [1.5]
        for value in values:
            with pytest.raises((InvalidTypeError, InvalidValueError), match=rf"^{name}.*: exp"):
                ask(**{name: value})


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (partial(S.paths, TRACE, seed=-1), "seed: expected at least 0, got -1"),
        (partial(untyped(S.paths), TRACE, windows=[(0,)]), "windows: expected pairs of integers"),
        (partial(TRACE.split, seed=-1), "seed: expected at least 0, got -1"),
        (partial(history_hits, seed=-1), "seed: expected at least 0, got -1"),
        (partial(history_hits, names=["recall_at_6"]), "names: .*M from 1 to 5 experts"),
        (partial(history_hits, names=["exact_set", "exact_set"]), "names: .*each measure once"),
        (
            partial(untyped(S.hop_accuracy), 3, TRACE),
            "train: expected a Trace or RouteCounts, got int",
        ),
        (partial(S.affinity, COUNTS, True, 0), "src: expected a layer number, got True"),
        (partial(S.history(TRACE, "set").prob, [[0, 1], [0]], 1), "prefix: .*unequal lengths"),
        (partial(rs.count, [[[1], [1, 2]]], num_experts=3), "experts: .*unequal lengths"),
        (partial(untyped(rs.verify), None), "trace: expected a Trace or a path, got NoneType"),
    ],
)
def test_what_is_wrong_is_named(ask: Callable[[], Any], message: str) -> None:
    with pytest.raises((InvalidTypeError, InvalidValueError), match=message):
        ask()


BAD = ["x", None, -1, 1.5, [], object(), float("nan"), np.arange(3), [object()], "", {}, (1, 2, 3)]
BAD += [np.array(3), np.zeros((3, 2)), 10**30]
ROUTED = np.zeros((3, 2, 1), np.uint8)


@pytest.mark.parametrize(
    "ask",
    [
        partial(S.affinity, COUNTS, src=0, dst=1),
        partial(S.agreement, TRACE, TRACE, bootstrap=2),
        partial(S.coactivation, COUNTS),
        partial(S.compare_domains, TRACE, permutations=2),
        partial(S.correlation, COUNTS),
        partial(S.history, TRACE),
        partial(S.history_hits, *TRACE.split(), context="top1", names=["exact_set"], seed=0),
        partial(S.hop_accuracy, *TRACE.split(), bootstrap=2),
        partial(S.information, TRACE, null_draws=1),
        partial(S.paths, TRACE, simulations=1),
        partial(S.repetition, TRACE, bootstrap=2),
        partial(S.segment_routing, TRACE, m=3, bootstrap=2),
        partial(S.specialization, TRACE, bootstrap=2),
        partial(S.transfer, TRACE, bootstrap=2),
        partial(rs.count, TRACE),
        partial(rs.count_ngrams, TRACE),
        partial(rs.count_paths, TRACE),
        partial(rs.count_paths(TRACE).most_frequent, 1),
        partial(rs.count_paths(TRACE).summary),
        partial(rs.RouteCounts.empty, TRACE.shape, hops=0, pairing="any"),
        partial(rs.Trace.from_arrays, ROUTED, num_experts=4, request_ids=["a", "a", "b"]),
        partial(rs.Trace.open, "nowhere"),
        partial(TRACE.batches),
        partial(TRACE.filter),
        partial(TRACE.iter_batches),
        partial(TRACE.iter_experts),
        partial(TRACE.split),
        partial(join, {"a": TRACE}),
        partial(sort_by_weight, [[1, 2]], [[0.1, 0.2]]),
        partial(report.analyse_run, "nowhere"),
        partial(untyped(report.claim_check), None),
        partial(report.compare_runs, TRACE, TRACE, permutations=2, bootstrap=2),
        partial(report.compare_with, TRACE, TRACE),
        partial(report.paper_table, TRACE, "srp"),
        partial(untyped(report.summary), None),
        partial(untyped(report.to_dict), None),
        partial(report.write_report, "nowhere"),
    ],
    ids=lambda ask: ask.func.__name__,
)
def test_no_argument_raises_anything_but_routestats_errors(ask: partial[Any]) -> None:
    refused = []
    for name in inspect.signature(ask.func).parameters:
        given = inspect.signature(ask.func).bind_partial(*ask.args, **ask.keywords).arguments
        for value in BAD:
            try:
                answer = ask.func(**{**given, name: value})
                if isinstance(answer, Iterator):
                    list(answer)
            except rs.RouteStatsError as error:
                refused.append(str(error))
    assert len(refused) >= 5
    assert not any("\n" in message for message in refused)
