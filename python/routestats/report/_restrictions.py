"""The words that say what a report of many experts leaves out."""

from __future__ import annotations

from routestats.report._analysis import Analysis
from routestats.report._limits import (
    DRAWS,
    LEVEL,
    MANY_EXPERTS,
    affinity_pairs,
    partners_listed,
)


def restrictions(analysis: Analysis) -> list[str]:
    """Sentences on what is less than it is for a model with few experts; none for such a model."""
    shape = analysis.trace.shape
    if shape.num_experts < MANY_EXPERTS:
        return []
    found = []
    if (information := analysis.information) is not None and information.null_draws < DRAWS:
        draws = information.null_draws
        found.append(
            f"Information permutes the tokens {draws} times and not {DRAWS}, so that its p is "
            f"{1 / (1 + draws):.2f} at the smallest."
        )
    if analysis.differences:
        found += _of_differences(analysis)
    sheets = {
        "affinity_adjacent.csv": shape.num_layers > 1,
        "coactivation.csv": analysis.coactivation is not None,
    }
    if listed := [name for name, there in sheets.items() if there]:
        found.append(
            f"Tables of pairs of experts ({', '.join(listed)}) list the {partners_listed(shape)} "
            f"most frequent partners of each expert and not all {shape.num_experts}."
        )
    if not found:
        return []
    return [
        f"With {shape.num_experts} experts a layer this report computes less of some statistics.",
        *found,
    ]


def _of_differences(analysis: Analysis) -> list[str]:
    found = []
    shape, layer_ids = analysis.trace.shape, analysis.load.layer_ids
    pairs = affinity_pairs(shape)
    if len(pairs) < shape.num_layers - 1:
        names = ", ".join(f"{layer_ids[a]} → {layer_ids[b]}" for a, b in pairs)
        found.append(
            f"Affinity is compared between domains at {len(pairs)} of the {shape.num_layers - 1} "
            f"adjacent layer pairs ({names}); loads are compared at every layer."
        )
    experts = analysis.differences[0].experts
    if (fewest := experts.fewest(LEVEL)) > 1:
        found.append(
            f"Of the {experts.q_value.size:,} experts that domains may load differently, fewer "
            f"than {fewest:,} cannot be told from chance by {experts.permutations:,} permutations."
        )
    return found
