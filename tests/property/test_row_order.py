"""The order of a trace's rows changes no statistic, draws of nulls and resamples included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from stats_cases import Row, make_trace

import routestats as rs
from routestats.schema import RequestRecord, RoutingBatch

S = rs.stats
STATISTICS: dict[str, Callable[[rs.Trace], Any]] = {
    "expert_load": lambda trace: S.expert_load(rs.count(trace, pairing="any")),
    "coactivation": lambda trace: S.coactivation(rs.count(trace, pairing="any")),
    "correlation": lambda trace: S.correlation(rs.count(trace, pairing="any")),
    "information": lambda trace: S.information(trace, hops="all", null_draws=4),
    "information, any": lambda trace: S.information(trace, "any", hops="all", null_draws=2),
    "hop_accuracy": lambda trace: S.hop_accuracy(*trace.split(test=0.5, seed=0)),
    "history_hits": lambda trace: S.history_hits(
        *trace.split(test=0.25, seed=0), context="top1", names=["top1_accuracy"], seed=0
    ),
    "paths": S.paths,
    "paths, sets": lambda trace: S.paths(trace, kind="set", simulations=2),
    "confidence": lambda trace: S.confidence(trace, bootstrap=50),
    "repetition": S.repetition,
    "segment_routing": lambda trace: S.segment_routing(trace, m=4),
    "specialization": S.specialization,
    "compare_domains": lambda trace: S.compare_domains(trace, permutations=99),
    "transfer": S.transfer,
    "agreement": lambda trace: S.agreement(trace, make_trace(4)[0]),
}


def numbers(result: Any, name: str = "") -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Every number in a result, and where it stands."""
    if is_dataclass(result):
        for field in fields(result):
            yield from numbers(getattr(result, field.name), f"{name}.{field.name}")
    elif isinstance(result, (tuple, dict)):
        parts = result.items() if isinstance(result, dict) else enumerate(result)
        for index, part in parts:
            yield from numbers(part, f"{name}[{index}]")
    elif isinstance(result, np.ndarray | float | int):
        yield name, np.asarray(result)


def captured(path: Path, rows: list[Row], order: npt.NDArray[np.integer[Any]]) -> rs.Trace:
    """A run whose rows were written in `order`, seven at a time, and whose requests ended in it."""
    shape = rs.RouteShape(3, 5, 2)
    rows = [rows[i] for i in order]
    with rs.TraceWriter(path, shape, weights=True, model="m", engine={}, flush_rows=40) as out:
        for start in range(0, len(rows), 7):
            for domain in "ba":
                part = [row for row in rows[start : start + 7] if row.domain == domain]
                if part:
                    out.write(batch_of(part))
        for request in dict.fromkeys(row.request for row in rows):
            mine = [row for row in rows if row.request == request]
            last = max(row.position for row in mine)
            out.write_requests([RequestRecord(request, mine[0].domain, mine[0].group, last + 1, 1)])
    return rs.Trace.open(path)


def batch_of(rows: list[Row]) -> RoutingBatch:
    names = tuple(dict.fromkeys(row.request for row in rows))
    experts = np.array([row.experts for row in rows], np.uint8)
    positions = np.array([row.position for row in rows], np.int32)
    token_ids = np.array([row.token_id for row in rows], np.int32)
    first = 0.5 + 0.4 * np.sin(positions[:, None] * 3 + token_ids[:, None] + np.arange(3)) ** 2
    return RoutingBatch(
        rows[0].domain,
        names,
        np.array([names.index(row.request) for row in rows], np.int32),
        positions,
        token_ids,
        (positions % 2).astype(np.uint8),
        experts,
        np.stack((first, 1 - first), axis=2).astype(np.float16),
    )


@pytest.mark.parametrize("name", STATISTICS)
def test_rows_in_another_order(name: str, tmp_path: Path) -> None:
    """Another order of rows, of requests within them and of the requests' ends."""
    # Names of which the tenth sorts before the second, and a prompt that both domains hold.
    _, rows = make_trace(3, prompts=11, length=15)
    rows = [replace(row, group="a3") if row.group == "b4" else row for row in rows]
    random = np.random.default_rng(1)
    traces = [captured(tmp_path / str(i), rows, random.permutation(len(rows))) for i in range(2)]
    assert traces[0].rows["position"].to_pylist() != traces[1].rows["position"].to_pylist()
    first, second = (dict(numbers(STATISTICS[name](trace))) for trace in traces)
    assert len(first) > 5
    assert first.keys() == second.keys()
    for place, values in first.items():
        if values.dtype.kind in "fiub":
            np.testing.assert_allclose(values, second[place], rtol=1e-9, atol=1e-12, err_msg=place)


def test_random_statistics_depend_on_the_seed() -> None:
    """Equal numbers would say nothing if nothing were drawn."""
    trace, _ = make_trace(3, prompts=6, length=25)
    for draw in (
        lambda seed: S.information(trace, null_draws=3, seed=seed).token_null_bits,
        lambda seed: S.information(trace, null_draws=3, seed=seed).request_null_bits,
        lambda seed: S.paths(trace, seed=seed).windows[0].markov.entropy_bits,
        lambda seed: S.segment_routing(trace, m=4, seed=seed).permuted_sch,
        lambda seed: S.repetition(trace, seed=seed).shared_all.low,
        lambda seed: S.compare_domains(trace, permutations=99, seed=seed).load.null_mean_bits,
    ):
        assert not np.array_equal(draw(0), draw(1), equal_nan=True)
