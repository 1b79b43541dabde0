"""`HopAccuracy` as a table of rows, and as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from routestats.counts._plan import layer_pairs
from routestats.stats._base.estimate import Estimate
from routestats.stats._hop_accuracy.measure import HopMeasure

SHOWN_HOPS = (1, 2, 4, 8, 16, 31)

SCHEMA = pa.schema(
    [
        ("measure", pa.string()),
        ("predictor", pa.string()),
        ("kind", pa.string()),
        ("source", pa.int64()),
        ("target", pa.int64()),
        ("hop", pa.int64()),
        *(
            (name, pa.float64())
            for name in ("value", "low", "high", "gain", "gain_low", "gain_high")
        ),
    ]
)


def measures_table(measures: Iterable[HopMeasure]) -> pa.Table:
    """See `HopAccuracy.to_table`; bounds that do not exist are null."""
    parts = [SCHEMA.empty_table()]
    for measure in measures:
        layers = len(measure.marginal.value)
        # As one reads a matrix, row by row.
        source, target = np.array(sorted(layer_pairs(layers))).T
        for prediction in measure.predictions:
            pairs = [part[source, target] for part in (*prediction.matrix, *prediction.gain)]
            means = [*prediction.by_hop, *prediction.gain_by_hop]
            hops = np.arange(1, layers)
            names = measure.name, prediction.name
            parts.append(_rows(*names, "pair", source, target, target - source, pairs))
            parts.append(_rows(*names, "hop", None, None, hops, means))
    return pa.concat_tables(parts)


def _rows(
    measure: str, predictor: str, kind: str, source: Any, target: Any, hop: Any, values: list[Any]
) -> pa.Table:
    size = len(hop)
    missing = pa.nulls(size, pa.int64())
    columns = [pa.array([text] * size, pa.string()) for text in (measure, predictor, kind)]
    columns += [missing if part is None else pa.array(part) for part in (source, target, hop)]
    columns += [pa.array(part, from_pandas=True) for part in values]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def table_by_hop(measure: HopMeasure) -> list[str]:
    """A line per predictor and a column per hop."""
    hops = [hop for hop in SHOWN_HOPS if hop <= len(measure.hop_by_distance.value)]
    head = "".join(f"  {f'hop {hop}':<16s}" for hop in hops)
    lines = [f"  {measure.label:17s}{head}".rstrip()]
    for prediction in measure.predictions:
        exact = prediction.name == "uniform"
        cells = cells_by_hop(prediction.by_hop, hops, intervals=not exact)
        lines.append(f"  {prediction.label:17s}{cells}")
    gains = cells_by_hop(measure.gain_by_distance, hops)
    return [*lines, f"  {'hop - marginal':17s}{gains}"]


def cells_by_hop(estimate: Estimate, hops: Sequence[int], *, intervals: bool = True) -> str:
    """Percents at some hops in columns, with intervals where there are any."""
    cells = [
        estimate.text(hop - 1, ".1f", scale=100, comma=",")
        if intervals
        else f"{estimate.value[hop - 1] * 100:.1f}"
        for hop in hops
    ]
    return "".join(f"  {cell:<16s}" for cell in cells).rstrip()
