"""Chains of first choices with known predictability, and traces of them."""

from __future__ import annotations

import numpy as np

import routestats as rs

LAYERS = 3


def chain(rng: np.random.Generator, tokens: int, keep: float) -> np.ndarray:
    """First choices [T, 3] of 4 experts that stay with probability `keep`, else are drawn anew."""
    first = rng.integers(0, 4, tokens)
    layers = [first]
    for _ in range(LAYERS - 1):
        stay = rng.random(tokens) < keep
        layers.append(np.where(stay, layers[-1], rng.integers(0, 4, tokens)))
    return np.stack(layers, axis=1)


def trace_of(first: np.ndarray, weight: np.ndarray | float = 0.75, requests: int = 40) -> rs.Trace:
    experts = np.stack([first, (first + 1) % 4], axis=2).astype(np.uint8)
    top = np.broadcast_to(np.asarray(weight, np.float32), first.shape)
    ids = [f"r{i * requests // len(first)}" for i in range(len(first))]
    return rs.Trace.from_arrays(
        experts, num_experts=4, request_ids=ids, weights=np.stack([top, 1 - top], axis=2)
    )
