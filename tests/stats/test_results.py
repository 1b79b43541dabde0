"""What every result has: a summary that `print` shows, a table, JSON and its conventions."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
from lookahead_cases import random_ids
from lookahead_cases import write_run as write_lookahead
from stats_cases import make_trace
from timing_cases import write as write_timings

import routestats as rs
from routestats import counts, live, plots, report, stats, trace
from routestats.result import Result, plain

TRACE, _ = make_trace(0, prompts=3)
ANY = rs.count(TRACE, hops="all", pairing="any")
TOP1 = rs.count(TRACE, hops="all", pairing="top1")
INTERVALS = {"pairing", "seed", "confidence", "bootstrap"}


@cache
def weighted() -> rs.Trace:
    """With weights, for what looks at the gates."""
    rng = np.random.default_rng(0)
    first = 0.5 + rng.random((400, 3)) / 2
    ids = rng.permuted(np.tile(np.arange(4), (400, 3, 1)), axis=2)[:, :, :2]
    return rs.Trace.from_arrays(
        ids,
        num_experts=4,
        request_ids=[f"r{i // 20}" for i in range(400)],
        weights=np.stack((first, 1 - first), axis=2),
    )


def with_lookahead(path: Path) -> rs.Trace:
    rng = np.random.default_rng(0)
    ids = random_ids(rng, 40, 5, best=2)
    write_lookahead(path, ids, random_ids(rng, 40, 2, 6, best=4))
    return rs.Trace.open(path)


def timed(path: Path) -> rs.stats.Timing:
    write_timings(path)
    return rs.stats.timing(path)


def sides() -> tuple[rs.Trace, rs.Trace]:
    return make_trace(0, prompts=5)[0].split(test=0.4, seed=0)


# What makes each result of the public face, and the conventions that its summary states.
RESULTS: dict[type[Result], tuple[Callable[[Path], Result], set[str]]] = {
    stats.ExpertLoad: (lambda _: stats.expert_load(ANY), {"pairing"}),
    stats.Affinity: (lambda _: stats.affinity(TOP1, 0, 2), {"pairing"}),
    stats.Correlation: (lambda _: stats.correlation(TOP1, pairs=[(0, 1)]), {"pairing"}),
    stats.Coactivation: (lambda _: stats.coactivation(ANY), {"pairing"}),
    stats.Repetition: (lambda _: stats.repetition(TRACE, bootstrap=20), INTERVALS),
    stats.SegmentRouting: (lambda _: stats.segment_routing(TRACE, m=3, bootstrap=20), INTERVALS),
    stats.Specialization: (
        lambda _: stats.specialization(TRACE, min_tokens=2, bootstrap=20),
        INTERVALS,
    ),
    stats.Transfer: (lambda _: stats.transfer(TRACE, bootstrap=20), INTERVALS | {"phase"}),
    stats.DomainDifference: (
        lambda _: stats.compare_domains(TRACE, permutations=19),
        {"pairing", "seed", "permutations", "phase"},
    ),
    stats.Divergence: (lambda _: stats.compare_domains(TRACE, permutations=19).load, set()),
    stats.ExpertDifference: (
        lambda _: stats.compare_domains(TRACE, permutations=19).experts,
        {"permutations"},
    ),
    stats.Information: (
        lambda _: stats.information(TRACE, null_draws=2),
        {"pairing", "null_draws", "confidence"},
    ),
    stats.HopAccuracy: (
        lambda _: stats.hop_accuracy(*sides(), bootstrap=20),
        {"pairing", "confidence"},
    ),
    stats.Agreement: (lambda _: stats.agreement(TRACE, TRACE, bootstrap=20), set()),
    stats.Paths: (lambda _: stats.paths(TRACE, simulations=2), {"kind", "simulations"}),
    stats.WindowPaths: (lambda _: stats.paths(TRACE, simulations=1).windows[0], {"domain"}),
    stats.History: (lambda _: stats.history(TRACE, order=1), {"context"}),
    stats.HistoryHits: (
        lambda _: stats.history_hits(*sides(), context="set", names=["recall_at_2"], seed=0),
        {"context"},
    ),
    stats.Confidence: (lambda _: stats.confidence(weighted(), bootstrap=20), {"hop", "margin_at"}),
    stats.Lookahead: (lambda at: stats.lookahead(with_lookahead(at), bootstrap=20), set()),
    stats.LookaheadHits: (lambda at: stats.lookahead_hits(with_lookahead(at)), set()),
    stats.Timing: (timed, {"model", "source", "confidence"}),
    stats.Speculation: (
        lambda at: stats.speculation(weighted(), timed(at)),
        {"model", "steps"},
    ),
    rs.PathCounts: (lambda _: rs.count_paths(TRACE), {"kind"}),
    rs.NgramCounts: (lambda _: rs.count_ngrams(TRACE, top=3), set()),
    trace.VerifyResult: (lambda _: rs.verify(TRACE), set()),
    report.RunComparison: (
        lambda _: report.compare_runs(TRACE, TRACE, permutations=19, bootstrap=20),
        set(),
    ),
    report.PaperTable: (
        lambda _: report.paper_table(TRACE, "mixtral-repetition"),
        {"title", "unit"},
    ),
}

# Public classes that are no results: what results are of, and what they are made from.
PARTS = {
    stats.Assumptions,
    stats.Calibration,
    stats.Estimate,
    stats.HopMeasure,
    stats.LookaheadMeasure,
    stats.MarginCurve,
    stats.PartAgreement,
    stats.Prediction,
    stats.SpeculationCase,
    stats.StepGroup,
    stats.TransferMeasure,
    report.PaperRow,
    trace.Check,
}
OTHERS = {
    rs.RouteCounts,
    rs.RouteShape,
    rs.RouteStatsError,
    rs.Trace,
    rs.TraceWriter,
    counts.GroupedRows,
    counts.LiveCounts,
    live.DashboardServer,
    # Bundles of results, of which each is written down by itself.
    report.Analysis,
    report.Compared,
}


def public_classes() -> Iterator[type]:
    """Every class that a public module names in its ``__all__``."""
    modules: tuple[ModuleType, ...] = (rs, stats, counts, trace, report, live, plots)
    for module in modules:
        for name in module.__all__:
            if inspect.isclass(value := getattr(module, name)):
                yield value


def test_every_public_class_is_a_result_or_known_to_be_none() -> None:
    classes = set(public_classes())
    assert len(classes) > 40
    assert {each.__name__ for each in classes - PARTS - OTHERS} == {
        each.__name__ for each in RESULTS
    }
    assert all(issubclass(each, Result) for each in RESULTS)
    assert not any(issubclass(each, Result) for each in PARTS | OTHERS)


def test_a_result_without_its_methods_cannot_be_made() -> None:
    class Half(Result):
        def summary(self) -> str:
            return ""

    with pytest.raises(TypeError, match="to_table"):
        Half()  # type: ignore[abstract]


@pytest.mark.parametrize("kind", RESULTS, ids=lambda kind: kind.__name__)
def test_print_table_json_and_conventions(kind: type[Result], tmp_path: Path) -> None:
    make, conventions = RESULTS[kind]
    result = make(tmp_path)
    assert type(result) is kind
    assert str(result) == result.summary()
    assert result.summary().strip()
    assert len(result.summary().splitlines()) < 60
    assert "nan" not in result.summary()
    table = result.to_table()
    assert isinstance(table, pa.Table)
    assert table.num_rows > 0
    values = json.loads(result.to_json())
    assert values
    assert not any(name.startswith("_") for name in values)
    for convention in conventions:
        stated = values[convention]
        assert stated is not None
        shown = stated.values() if isinstance(stated, dict) else [stated]
        for value in ["95%"] if convention == "confidence" else shown:
            assert str(value) in result.summary()
    if is_dataclass(result):
        with pytest.raises(FrozenInstanceError):
            setattr(result, fields(result)[0].name, None)


def test_history_is_written_whole_or_by_layer_pair() -> None:
    model = rs.stats.history(TRACE, order=1)
    whole = model.to_table()
    columns = (whole[name].to_pylist() for name in ("source", "target"))
    assert list(dict.fromkeys(zip(*columns, strict=True))) == [(0, 1), (1, 2), (0, 2)]
    first = model.to_table(0, 1)
    assert whole.slice(0, len(first)).drop_columns(["source", "target"]).equals(first)
    assert json.loads(model.to_json())["contexts"] == whole.to_pylist()
    with pytest.raises(rs.RouteStatsError, match="source: expected both source and target"):
        model.to_table(0)


def test_a_comparison_of_runs_has_the_tables_of_its_parts() -> None:
    found = report.compare_runs(TRACE, TRACE, permutations=19, bootstrap=20)
    rows = plain(found.to_table().to_pylist())
    for name, part in found.parts.items():
        mine = [row for row in rows if row["part"] == name]
        expected = plain(part.to_table().to_pylist())
        assert [{key: row[key] for key in expected[0]} for row in mine] == expected


def test_load_and_affinity_tables_hold_the_values() -> None:
    load = rs.stats.expert_load(ANY)
    table = load.to_table().to_pylist()
    assert table[1 * 5 + 3]["load"] == load.load[1, 3]
    assert table[1 * 5 + 3]["imbalance"] == load.imbalance[1]
    affinity = rs.stats.affinity(ANY, 0, 1)
    row = affinity.to_table().to_pylist()[2 * 5 + 4]
    assert (row["source_expert"], row["target_expert"]) == (2, 4)
    assert row["affinity"] == affinity.matrix[2, 4]
    assert row["source_tokens"] == ANY.expert[0, 2]


@pytest.mark.parametrize("counts", [ANY, TOP1], ids=["any", "top1"])
def test_affinity_says_what_the_target_gets_anyway(counts: rs.RouteCounts) -> None:
    affinity = rs.stats.affinity(counts, 0, 1)
    np.testing.assert_allclose(affinity.target_share, counts.expert[1] / counts.tokens)
    source, target = np.unravel_index(np.nanargmax(affinity.matrix), (5, 5))
    assert f"expert {source} -> {target}: {affinity.matrix[source, target]:.1%}" in str(affinity)
    within = str(rs.stats.affinity(counts, 1, 1))
    assert not any(f"expert {e} -> {e}:" in within for e in range(5))
