"""What the report restricts itself to for models with many experts, and the words that say so."""

from __future__ import annotations

import numpy as np

from routestats.shape import RouteShape

MANY_EXPERTS = 64
"""From here on tables of E x E cells are too many to permute at every layer pair."""
FEW_PAIRS = 4
DRAWS, FEW_DRAWS = 99, 19
PARTNERS = 32


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


def restrictions(shape: RouteShape, layer_ids: tuple[int, ...]) -> list[str]:
    """Sentences on what is less than it is for a model with few experts; none for such a model."""
    if shape.num_experts < MANY_EXPERTS:
        return []
    found = [
        f"With {shape.num_experts} experts a layer this report computes less of some statistics. "
        f"Information permutes the tokens {FEW_DRAWS} times and not {DRAWS}, so that its p is "
        f"{1 / (1 + FEW_DRAWS):.2f} at the smallest."
    ]
    pairs = affinity_pairs(shape)
    if len(pairs) < shape.num_layers - 1:
        names = ", ".join(f"{layer_ids[a]} → {layer_ids[b]}" for a, b in pairs)
        found.append(
            f"Affinity is compared between domains at {len(pairs)} of the {shape.num_layers - 1} "
            f"adjacent layer pairs ({names}); loads are compared at every layer."
        )
    found.append(
        f"Tables of pairs of experts (affinity_adjacent.csv, coactivation.csv) list the {PARTNERS} "
        f"most frequent partners of each expert and not all {shape.num_experts}."
    )
    return found
