"""What the report restricts itself to, most of it for models with many experts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from routestats.shape import RouteShape

HOPS_SHOWN = (1, 2, 4, 8, 16, 31)
"""Layers ahead that tables show."""
MAX_DOMAIN_PAIRS = 6
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


def hops_shown(shape: RouteShape) -> list[int]:
    """Those of `HOPS_SHOWN` that the model has."""
    return [hop for hop in HOPS_SHOWN if hop < shape.num_layers]


def domain_pairs(domains: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of domains that are compared: the first ones, in the order of their names."""
    return list(combinations(domains, 2))[:MAX_DOMAIN_PAIRS]
