"""Finding a transformers model's routers, and reading what they choose.

A router's module returns it: transformers' routers hand ``(logits, weights, ids)`` to their
experts, with the weights as applied. A model whose routers return logits alone is refused, because
we must not guess how it makes choices of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from routestats.errors import CaptureError


@dataclass(frozen=True, slots=True)
class Router:
    """A router: its module, its decoder-layer number, and the extents of what it chooses."""

    module: Any
    layer_id: int
    num_experts: int
    top_k: int


def find_routers(model: Any) -> list[Router]:
    """The routers of a transformers model, in the order of their layers.

    Raises
    ------
    CaptureError
        If there are none, they differ, or they do not return what they choose.
    """
    recorders = list(_recorders(model))
    found = []
    for name, module in model.named_modules():
        for recorder in recorders:
            if not isinstance(module, recorder.target_class):
                continue
            if recorder.layer_name is not None and recorder.layer_name not in name:
                continue
            found.append(_router(name, module, model.config))
            break
    if not found:
        raise CaptureError(f"{type(model).__name__} has no MoE layers")
    found.sort(key=lambda router: router.layer_id)
    first = found[0]
    for router in found:
        if (router.num_experts, router.top_k) != (first.num_experts, first.top_k):
            raise CaptureError(
                f"layer {router.layer_id}: top-{router.top_k} of {router.num_experts} experts, but "
                f"layer {first.layer_id} has top-{first.top_k} of {first.num_experts}; "
                "layers must be alike"
            )
    return found


def _recorders(model: Any) -> Iterator[Any]:
    """What the model itself names as the source of its router logits."""
    for module in model.modules():
        outputs = getattr(module, "_can_record_outputs", None) or {}
        recorder = outputs.get("router_logits")
        if recorder is not None:
            yield from recorder if isinstance(recorder, list) else [recorder]


def _router(name: str, module: Any, config: Any) -> Router:
    number = re.search(r"\.(\d+)\.", name)
    weight = getattr(module, "weight", None)
    experts = getattr(module, "num_experts", None)
    if experts is None and weight is not None:
        experts = weight.shape[0]
    text = config.get_text_config()
    top_k = getattr(module, "top_k", None) or getattr(text, "num_experts_per_tok", None)
    if number is None or not experts or not top_k or isinstance(module, torch.nn.Linear):
        raise CaptureError(
            f"{name}: {type(module).__name__} returns logits alone; expected a router that "
            "returns the experts it chooses and their weights"
        )
    return Router(module, int(number[1]), int(experts), int(top_k))


def choices(module: Any, output: Any, rows: int, top_k: int) -> tuple[Any, Any]:
    """The ids and weights among what a router returns."""
    parts = output if isinstance(output, tuple) else (output,)
    wanted = [p for p in parts if torch.is_tensor(p) and tuple(p.shape) == (rows, top_k)]
    ids = [p for p in wanted if not p.is_floating_point()]
    weights = [p for p in wanted if p.is_floating_point()]
    if len(ids) != 1 or len(weights) != 1:
        shapes = [tuple(p.shape) for p in parts if torch.is_tensor(p)]
        raise CaptureError(
            f"{type(module).__name__}: expected ids and weights of shape {(rows, top_k)}, "
            f"got {shapes}"
        )
    return ids[0], weights[0]
