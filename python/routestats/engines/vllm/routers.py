"""Finding a model's MoE routers and wrapping them.

What a router chooses is read where it is computed: ``router._compute_routing`` returns the gate
weights as applied and the logical expert ids, before any mapping to physical experts. It is
wrapped on the instance, which leaves ``set_capture_fn``, a single slot that vLLM's own capturer
takes, alone. Where a kernel routes by itself, the router is asked beside it (`monolithic`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from routestats.engines.vllm.backends import alternatives
from routestats.engines.vllm.given_routing import GivenRouting, is_given_routing, layer_id_of
from routestats.engines.vllm.monolithic import (
    Selection,
    buffer_for,
    is_monolithic,
    routing_beside,
    selection_of,
    why_unobservable,
)
from routestats.engines.vllm.taps import Tap
from routestats.errors import CaptureError
from routestats.shape import RouteShape


@dataclass(frozen=True, slots=True)
class MoELayer:
    """A routed layer: its decoder-layer number, its router, and the module that holds it."""

    layer_id: int
    router: Any
    num_experts: int
    top_k: int
    name: str = ""
    module: Any = None


def find_layers(model: Any, num_experts: int) -> list[MoELayer]:
    """The MoE layers of a vLLM model, in order.

    Raises
    ------
    CaptureError
        If there are none, or one of them routes where it cannot be observed.
    """
    layers = []
    for name, module in model.named_modules():
        if is_adapter(module):
            continue  # it shows the layer inside it as its own
        router = getattr(module, "router", None)
        if router is None or not hasattr(router, "set_capture_fn"):
            if is_given_routing(module):
                layers.append(_given(name, module, num_experts))
            elif hasattr(module, "capture_fn") and hasattr(module, "layer_id"):
                raise CaptureError(
                    f"layer {name}: {type(module).__name__} routes by itself; "
                    "expected a layer with a router that can be observed"
                )
            continue
        _check_observable(name, module, router)
        config = getattr(module, "moe_config", None)
        layers.append(
            MoELayer(
                layer_id=int(module.layer_id),
                router=router,
                num_experts=int(getattr(config, "num_logical_experts", num_experts)),
                top_k=int(router.top_k),
                name=name,
                module=module,
            )
        )
    if not layers:
        raise CaptureError(f"model {type(model).__name__} has no MoE layers")
    return sorted(layers, key=lambda layer: layer.layer_id)


def is_adapter(module: Any) -> bool:
    """Whether a module is that of an adapter (LoRA) around the layer that it stands for."""
    return hasattr(module, "base_layer")


def _given(name: str, module: Any, num_experts: int) -> MoELayer:
    router = GivenRouting(module)
    experts = int(getattr(module, "num_logical_experts", num_experts))
    return MoELayer(layer_id_of(name, module), router, experts, router.top_k, name, module)


def _check_observable(name: str, module: Any, router: Any) -> None:
    if type(router).__name__ == "ZeroExpertRouter":
        raise CaptureError(f"layer {name}: models with zero experts are not supported")
    reason = None
    if not hasattr(router, "_compute_routing"):
        reason = f"router {type(router).__name__} has no _compute_routing to observe"
    elif is_monolithic(module) and (why := why_unobservable(module, router)) is not None:
        reason = f"its kernel {type(module._quant_method).__name__} routes by itself and {why}"
    if reason is not None:
        raise CaptureError(f"layer {name}: {reason}{what_works(module)}")


def what_works(module: Any) -> str:
    """The option and its values that give a monolithic layer another kernel; for error messages."""
    names = alternatives(module) if is_monolithic(module) else ()
    return f"; expected moe_backend={' or '.join(map(repr, names))}" if names else ""


def shape_of(layers: list[MoELayer]) -> RouteShape:
    """The common shape of the layers; `CaptureError` names the first that differs."""
    first = layers[0]
    for layer in layers[1:]:
        for what in ("num_experts", "top_k"):
            if getattr(layer, what) != getattr(first, what):
                raise CaptureError(
                    f"layer {layer.layer_id} has {what} {getattr(layer, what)}, but layer "
                    f"{first.layer_id} has {getattr(first, what)}; layers must be alike"
                )
    return RouteShape(len(layers), first.num_experts, first.top_k)


class RouterBinding:
    """Wraps the routers of `layers` so that `tap` sees every choice, until `release`."""

    def __init__(self, layers: list[MoELayer], tap: Tap) -> None:
        self._undo: list[Callable[[], None]] = []
        selections = [_selection(layer) for layer in layers]
        checked = [
            layer for layer, found in zip(layers, selections, strict=True) if found is not None
        ]
        tap.checked_layers = len(checked)
        buffer = buffer_for(checked[0].module) if checked else None
        for index, (layer, selection) in enumerate(zip(layers, selections, strict=True)):
            self._wrap(layer.router, "_compute_routing", _observed(layer, index, tap))
            experts = getattr(layer.module, "routed_experts", None)
            if hasattr(experts, "forward_monolithic"):  # it may become so when weights are loaded
                beside = routing_beside(layer.module, index, tap, selection, buffer)
                self._wrap(experts, "forward_monolithic", beside)

    def release(self) -> None:
        """Take the wrappers off. Compiled code keeps what it was compiled with."""
        while self._undo:
            self._undo.pop()()

    def _wrap(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        setattr(owner, name, function)
        self._undo.append(lambda: delattr(owner, name))


def _selection(layer: MoELayer) -> Selection | None:
    return selection_of(layer.module) if is_monolithic(layer.module) else None


def _observed(layer: MoELayer, index: int, tap: Tap) -> Callable[..., Any]:
    compute, top_k = layer.router._compute_routing, layer.top_k
    # Shared experts that are fused with the routed ones: columns after theirs, the same for all.
    shared = int(getattr(layer.router, "num_fused_shared_experts", 0) or 0)

    def compute_routing(*args: Any, **kwargs: Any) -> Any:
        weights, ids = compute(*args, **kwargs)
        if shared and ids.shape[-1] == top_k + shared:
            tap.observe(index, ids[:, :top_k], weights[:, :top_k])
        else:
            tap.observe(index, ids, weights)
        return weights, ids

    return compute_routing
