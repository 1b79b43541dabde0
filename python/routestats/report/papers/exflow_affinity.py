"""Affinity of adjacent layers as ExFlow has it, and how many tokens estimate it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routestats.counts import count
from routestats.errors import InvalidValueError
from routestats.report.papers import published
from routestats.report.papers.table import PaperRow, PaperTable
from routestats.trace import Trace

NOT_GIVEN = "The paper prints no figures of this table that could stand here."


def exflow_affinity(trace: Trace) -> PaperTable:
    """How likely the most likely next expert is, and how many tokens it takes to know."""
    if trace.shape.num_layers < 2:
        raise InvalidValueError("trace: expected at least 2 layers, got 1")
    pairing = "top1" if trace.ordered else "any"
    experts = trace.experts
    whole = _adjacent(trace, experts, pairing)
    everyone = count(trace, hops=(1,), pairing=pairing).expert.astype(np.float64)
    source, target = everyone[:-1], everyone[1:]
    # Weighted by how often each source expert is chosen.
    weight = source / source.sum(axis=1, keepdims=True)
    strongest = (np.nan_to_num(whole).max(axis=2) * weight).sum(axis=1)
    baseline = target.max(axis=1) / len(trace)
    layers = sorted({0, (trace.shape.num_layers - 2) // 2, trace.shape.num_layers - 2})
    columns = [f"{trace.layer_ids[i]} to {trace.layer_ids[i + 1]}" for i in layers]

    def row(origin: str, name: str, values: npt.NDArray[np.float64]) -> PaperRow:
        picked = [float(values[i]) for i in layers]
        return PaperRow(origin, name, tuple(v * 100 for v in (*picked, float(values.mean()))))

    rows = [
        row("measured", "most likely next expert, given this one", strongest),
        row("random", "most likely next expert, whatever this one", baseline),
    ]
    rng = np.random.default_rng(0)
    for tokens in published.EXFLOW_TOKENS:
        if tokens < len(trace):
            some = np.sort(rng.permutation(len(trace))[:tokens])
            part = _adjacent(trace, experts[some], pairing)
            error = np.abs(np.nan_to_num(part) - np.nan_to_num(whole)).mean(axis=2)
            rows.append(
                row("measured", f"mean error, {tokens:,} tokens", (error * weight).sum(axis=1))
            )
    rows.sort(key=lambda row: row.origin == "random")
    few, many = published.EXFLOW_TOKENS
    return PaperTable(
        name="exflow-affinity",
        title="Affinity of adjacent layers",
        source=published.EXFLOW,
        unit="%, layers by number, and the mean over all adjacent layers",
        columns=(*columns, "all"),
        rows=tuple(rows),
        notes=(
            f"Affinity is P(expert at the next layer | expert at this one), pairing {pairing}; "
            "experts weigh as they are used.",
            f"The paper finds {few:,} to {many:,} tokens enough to estimate it: the mean error is "
            "the difference per cell between a table of so many tokens, drawn at random (seed 0), "
            f"and that of all {len(trace):,}. {NOT_GIVEN}",
        ),
    )


def _adjacent(
    trace: Trace, experts: npt.NDArray[np.integer], pairing: str
) -> npt.NDArray[np.float64]:
    """Affinity [L - 1, E, E] of adjacent layers; NaN rows for experts that were not chosen."""
    shape = trace.shape
    counts = count(experts, num_experts=shape.num_experts, hops=(1,), pairing=pairing)
    pairs = np.stack([counts.pair(i, i + 1) for i in range(shape.num_layers - 1)])
    load = counts.expert[:-1, :, None].astype(np.float64)
    none = np.full(pairs.shape, np.nan)
    affinity: npt.NDArray[np.float64] = np.divide(pairs, load, out=none, where=load > 0)
    return affinity
