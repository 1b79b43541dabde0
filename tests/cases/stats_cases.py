"""Small traces with everything that a statistic must cope with, and their rows as plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

import routestats as rs


@dataclass(frozen=True)
class Row:
    request: str
    group: str
    domain: str
    position: int
    token_id: int
    experts: list[list[int]]


def make_trace(
    seed: int,
    *,
    layers: int = 3,
    experts: int = 5,
    top_k: int = 2,
    prompts: int = 4,
    samples: int = 2,
    length: int = 12,
    taste: float = 1.0,
    ordered: bool = True,
) -> tuple[rs.Trace, list[Row]]:
    """Two domains of `prompts` prompts, each sampled twice, rows shuffled, positions missing."""
    rng = np.random.default_rng(seed)
    rows = []
    for domain in "ab":
        for prompt in range(prompts):
            liking = taste * rng.normal(size=(layers, experts))
            for sample in range(samples):
                positions = np.flatnonzero(rng.random(length) < 0.9)
                for position in positions[: rng.integers(3, length + 1)]:
                    keys = rng.gumbel(size=(layers, experts)) + liking
                    rows.append(
                        Row(
                            f"{domain}{prompt}-{sample}",
                            f"{domain}{prompt}",
                            domain,
                            int(position),
                            int(rng.integers(0, 6)),
                            np.argsort(-keys, axis=1)[:, :top_k].tolist(),
                        )
                    )
    rows = [rows[i] for i in rng.permutation(len(rows))]
    return trace_of(rows, experts, ordered=ordered), rows


def trace_of(rows: list[Row], num_experts: int, *, ordered: bool = True) -> rs.Trace:
    return rs.Trace.from_arrays(
        np.array([row.experts for row in rows], np.uint8),
        num_experts=num_experts,
        request_ids=[row.request for row in rows],
        positions=np.array([row.position for row in rows]),
        token_ids=np.array([row.token_id for row in rows]),
        domain={row.request: row.domain for row in rows},
        groups={row.request: row.group for row in rows},
        ordered=ordered,
    )


def claim_fewer_experts(trace: rs.Trace, num_experts: int) -> rs.Trace:
    """The trace as a damaged file would give it: with ids that its shape does not have."""
    source = trace._source
    shape = rs.RouteShape(source.shape.num_layers, num_experts, source.shape.top_k)
    return rs.Trace(replace(source, shape=shape), trace._selection, {}, trace.ordered)  # type: ignore[type-var]
