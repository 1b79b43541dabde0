"""What the report restricts itself to for models with many experts."""

from __future__ import annotations

import numpy as np

from routestats.shape import RouteShape

MANY_EXPERTS = 64
"""From here on tables of E x E cells are too many to permute at every layer pair."""
FEW_PAIRS = 4
DRAWS, FEW_DRAWS = 99, 19
PARTNERS = 32
LEVEL = 0.05
"""A difference is called beyond chance up to this q."""


def null_draws(shape: RouteShape) -> int:
    """Permutations per null of information: the smallest p is 0.01, with many experts 0.05."""
    return FEW_DRAWS if shape.num_experts >= MANY_EXPERTS else DRAWS


def affinity_pairs(shape: RouteShape) -> list[tuple[int, int]]:
    """Adjacent layer pairs whose affinity is compared: all, or with many experts a few, spread."""
    pairs = shape.num_layers - 1
    if shape.num_experts < MANY_EXPERTS or pairs <= FEW_PAIRS:
        return [(layer, layer + 1) for layer in range(pairs)]
    chosen = np.linspace(0, pairs - 1, FEW_PAIRS).round().astype(int)
    return [(layer, layer + 1) for layer in chosen.tolist()]


def partners_listed(shape: RouteShape) -> int:
    """Experts listed beside each expert in tables of pairs: all, or those most often beside it."""
    return PARTNERS if shape.num_experts >= MANY_EXPERTS else shape.num_experts
