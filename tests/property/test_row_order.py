"""The order of a trace's rows changes no statistic, but for draws of nulls that move rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import routestats as rs

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from stats_cases import make_trace, trace_of

S = rs.stats
STATISTICS: dict[str, Callable[[rs.Trace], Any]] = {
    "expert_load": lambda trace: S.expert_load(rs.count(trace, pairing="any")),
    "coactivation": lambda trace: S.coactivation(rs.count(trace, pairing="any")),
    "correlation": lambda trace: S.correlation(rs.count(trace, pairing="any")),
    "information": lambda trace: S.information(trace, hops="all", null_draws=0),
    "hop_accuracy": lambda trace: S.hop_accuracy(*trace.split(test=0.25, seed=0)),
    "history_hits": lambda trace: S.history_hits(
        *trace.split(test=0.25, seed=0), context="top1", names=["top1_accuracy"], seed=0
    ),
    "paths": S.paths,
    "repetition": S.repetition,
    "segment_routing": lambda trace: S.segment_routing(trace, m=4),
    "specialization": S.specialization,
    "compare_domains": lambda trace: S.compare_domains(trace, phase="prefill"),
    "transfer": S.transfer,
    "agreement": lambda trace: S.agreement(trace, make_trace(4)[0]),
}


def numbers(result: Any, name: str = "") -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Every number in a result, and where it stands."""
    if is_dataclass(result):
        for field in fields(result):
            yield from numbers(getattr(result, field.name), f"{name}.{field.name}")
    elif isinstance(result, tuple):
        for index, part in enumerate(result):
            yield from numbers(part, f"{name}[{index}]")
    elif isinstance(result, np.ndarray | float | int):
        yield name, np.asarray(result)


@pytest.mark.parametrize("name", STATISTICS)
def test_rows_in_another_order(name: str) -> None:
    trace, rows = make_trace(3, prompts=6, length=25)
    order = np.random.default_rng(1).permutation(len(rows))
    first, second = (
        dict(numbers(STATISTICS[name](each)))
        for each in (trace, trace_of([rows[i] for i in order], 5))
    )
    assert len(first) > 5
    assert first.keys() == second.keys()
    for place, values in first.items():
        drawn = ".independent" in place or ".markov" in place
        if values.dtype.kind in "fiub" and not drawn:
            np.testing.assert_allclose(values, second[place], rtol=1e-11, atol=1e-14, err_msg=place)
