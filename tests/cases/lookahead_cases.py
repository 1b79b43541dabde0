"""Runs that hold what later gates would have chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

import routestats as rs
from routestats.schema import LookaheadLayout, RequestRecord, RoutingBatch
from routestats.shape import RouteShape

SHAPE = RouteShape(5, 8, 2)
LAYOUT = LookaheadLayout((1, 3), 4, ("as_is", "renormed"))
PAIRS = LAYOUT.pairs(5)
Ids = npt.NDArray[np.uint8]


def random_ids(rng: np.random.Generator, *extents: int, best: int) -> Ids:
    return rng.random((*extents, 8)).argsort(axis=-1)[..., :best].astype(np.uint8)


def write_run(
    path: Path, experts: Ids, ahead: Ids | None, requests: int = 4, domain: str = "d"
) -> None:
    rows = len(experts) // requests
    names = tuple(f"{domain}{i}" for i in range(requests))
    weights = np.broadcast_to(np.array([0.75, 0.25], np.float16), experts.shape)
    with rs.TraceWriter(
        path,
        SHAPE,
        weights=True,
        lookahead=None if ahead is None else LAYOUT,
        model="m",
        engine={},
        flush_rows=7,
    ) as writer:
        for start in range(0, len(experts), 5):
            part = slice(start, start + 5)
            index = np.arange(len(experts))[part] // rows
            writer.write(
                RoutingBatch(
                    domain,
                    names,
                    index.astype(np.int32),
                    (np.arange(len(experts))[part] % rows).astype(np.int32),
                    np.zeros(len(index), np.int32),
                    np.zeros(len(index), np.uint8),
                    experts[part],
                    np.ascontiguousarray(weights[part]),
                    None if ahead is None else ahead[part],
                )
            )
        writer.write_requests([RequestRecord(name, domain, name, rows, 1) for name in names])
