"""MoE layers without a router: their model chooses the experts and hands them to the layer.

vLLM's "mega" kernels of DeepSeek-V4 and Kimi-K3 are such layers. What ``forward`` is given are the
gate weights as applied and the logical expert ids.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from routestats.errors import CaptureError


def is_given_routing(module: Any) -> bool:
    """Whether a layer is told its experts, so that there is no router to wrap."""
    if not hasattr(module, "top_k") or not hasattr(module, "num_experts"):
        return False
    named = inspect.signature(type(module).forward).parameters
    return "topk_weights" in named and "topk_ids" in named


class GivenRouting:
    """Stands for the router of such a layer: each forward pass tells it what was chosen.

    Parameters
    ----------
    module : the layer
        Its ``forward`` is wrapped, on the instance.
    """

    def __init__(self, module: Any) -> None:
        # A fused shared expert is one more choice, which the layer adds by itself.
        self.top_k = int(getattr(module, "routed_top_k", module.top_k))
        forward = module.forward

        def forward_and_tell(
            hidden_states: Any, topk_weights: Any, topk_ids: Any, *args: Any, **kwargs: Any
        ) -> Any:
            self._compute_routing(topk_weights, topk_ids)
            return forward(hidden_states, topk_weights, topk_ids, *args, **kwargs)

        module.forward = forward_and_tell

    def _compute_routing(self, weights: Any, ids: Any) -> tuple[Any, Any]:
        """What capture wraps, as it does a router's own."""
        return weights, ids


def layer_id_of(name: str, module: Any) -> int:
    """Number of the decoder layer that a layer lies in.

    Raises
    ------
    CaptureError
        If it cannot be told.
    """
    if hasattr(module, "layer_id"):
        return int(module.layer_id)
    numbers = re.findall(r"(?<=\.)\d+(?=\.)", f".{name}.")
    if len(numbers) != 1:
        raise CaptureError(f"layer {name}: expected one number of a decoder layer in its name")
    return int(numbers[0])
