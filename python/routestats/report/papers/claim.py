"""The share of routing and dispatch that is cited for large deployments, beside what was measured.

It is a comparison. The cited figure is communication between GPUs, which one device has not.
"""

from __future__ import annotations

from routestats.report.papers.published import (
    CITED_RANGE,
    EXPERT_PARALLEL_COMMUNICATION,
    SPECULATIVE_MOE,
)
from routestats.stats import Estimate, Timing


def claim_check(timing: Timing) -> list[str]:
    """Lines that set the measured shares beside the cited ones, and say what differs."""
    low, high = CITED_RANGE
    lines = [
        f"Routing, dispatch and combine are cited at {low:.0f}-{high:.0f} % in large distributed "
        f"deployments. {SPECULATIVE_MOE} measures up to {EXPERT_PARALLEL_COMMUNICATION} % of the "
        "MoE layer's forward time, for DeepSeek-V2-Lite on 8 GPUs; the lower figure was not found "
        "there."
    ]
    for group in timing.groups:
        per_layer = group.share_of_moe["overhead"].value
        busiest = int(per_layer.argmax())
        lines.append(
            f"{group.label}: {_share(group.total_share_of_moe['overhead'])} of the MoE layer "
            f"(layer {timing.layer_ids[busiest]} the most, {_share_at(group.share_of_moe, busiest)}"
            f"), {_share(group.total_share_of_layer['overhead'])} of the whole decoder layer"
        )
    spread = int(timing.engine.get("tensor_parallel_size", 1))
    if spread == 1:
        lines.append(
            "This is a comparison, not a validation: the figure above is communication between "
            "GPUs, and here one device sends nothing to another. The same command on an "
            "expert-parallel deployment is the real check."
        )
    else:
        how = "expert" if timing.engine.get("expert_parallel") else "tensor"
        lines.append(
            f"Here {spread} devices share the layer by {how} parallelism; communication is part of "
            "dispatch and combine."
        )
    return lines


def _share(estimate: Estimate) -> str:
    value, low, high = (float(part[0]) for part in estimate)
    return f"{value:.1%}" if low != low else f"{value:.1%} [{low:.1%}, {high:.1%}]"


def _share_at(shares: dict[str, Estimate], layer: int) -> str:
    return _share(Estimate(*(part[layer : layer + 1] for part in shares["overhead"])))
