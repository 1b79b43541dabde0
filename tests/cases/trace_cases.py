"""Small runs of random routing, written by the trace writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.schema import RequestRecord, RoutingBatch
from routestats.shape import RouteShape
from routestats.trace import TraceWriter, sort_by_weight

SHAPE = RouteShape(4, 8, 2)


def routing(
    rows: int, shape: RouteShape = SHAPE, seed: int = 0
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Ids and weights [rows, L, K], sorted by weight."""
    random = np.random.default_rng(seed)
    keys = random.random((rows, shape.num_layers, shape.num_experts))
    ids = np.argsort(keys, axis=2)[:, :, : shape.top_k].astype(shape.id_dtype)
    return sort_by_weight(ids, random.random(ids.shape))


def batch(
    request: str, rows: int, domain: str = "d", shape: RouteShape = SHAPE, seed: int = 0
) -> RoutingBatch:
    ids, weights = routing(rows, shape, seed)
    return RoutingBatch(
        domain,
        (request,),
        np.zeros(rows, np.int32),
        np.arange(rows, dtype=np.int32),
        np.arange(rows, dtype=np.int32) % 7,
        np.zeros(rows, np.uint8),
        ids,
        weights,
    )


def writer(path: Path, shape: RouteShape = SHAPE, **more: Any) -> TraceWriter:
    return TraceWriter(path, shape, **{"weights": True, "model": "m", "engine": {}, **more})


def write_run(path: Path, requests: int = 6, rows: int = 10, **more: Any) -> None:
    with writer(path, **more) as out:
        for i in range(requests):
            domain = f"d{i % 2}"
            out.write(batch(f"r{i}", rows, domain, seed=i))
            out.write_requests([RequestRecord(f"r{i}", domain, f"g{i // 2}", rows, 1)])
