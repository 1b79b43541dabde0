"""The share of routing and dispatch that is cited for large deployments, beside what was measured.

It is a comparison. The cited figure is communication between GPUs, which one device has not.
"""

from __future__ import annotations

from routestats.errors import InvalidTypeError
from routestats.report.papers.published import (
    CITED_RANGE,
    EXPERT_PARALLEL_COMMUNICATION,
    SPECULATIVE_MOE,
)
from routestats.stats import Timing


def claim_check(timing: Timing) -> list[str]:
    """Set the measured shares beside the cited ones.

    Returns
    -------
    list of str
        Lines that give both and say what differs.

    Raises
    ------
    InvalidTypeError
        If `timing` is none.
    """
    if not isinstance(timing, Timing):
        raise InvalidTypeError(f"timing: expected a Timing, got {type(timing).__name__}")
    low, high = CITED_RANGE
    lines = [
        f"Routing, dispatch and combine are cited at {low:.0f}-{high:.0f} % in large distributed "
        f"deployments. {SPECULATIVE_MOE} measures up to {EXPERT_PARALLEL_COMMUNICATION} % of the "
        "MoE layer's forward time, for DeepSeek-V2-Lite on 8 GPUs; the lower figure was not found "
        "there."
    ]
    for group in timing.groups:
        by_layer, whole = group.share_of_moe["overhead"], group.total_share_of_moe["overhead"]
        busiest = int(by_layer.value.argmax())
        lines.append(
            f"{group.label}: {whole.text(0)} of the MoE layer "
            f"(layer {timing.layer_ids[busiest]} the most, {by_layer.text(busiest)}"
            f"), {group.total_share_of_layer['overhead'].text(0)} of the whole decoder layer"
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
