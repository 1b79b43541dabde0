"""Finding a model's MoE routers and wrapping them.

What a router chooses is read where it is computed: ``router._compute_routing`` returns the gate
weights as applied and the logical expert ids, before any mapping to physical experts. It is
wrapped on the instance, which leaves ``set_capture_fn``, a single slot that vLLM's own capturer
takes, alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from routestats.engines.vllm.backends import alternatives
from routestats.engines.vllm.given_routing import GivenRouting, is_given_routing, layer_id_of
from routestats.errors import CaptureError
from routestats.shape import RouteShape

Observe = Callable[[int, Any, Any], None]
"""Called with a layer's index, ids ``[rows, K]`` and weights ``[rows, K]``."""


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
    if not hasattr(router, "_compute_routing"):
        raise CaptureError(
            f"layer {name}: router {type(router).__name__} has no _compute_routing to observe"
        )
    if type(router).__name__ == "ZeroExpertRouter":
        raise CaptureError(f"layer {name}: models with zero experts are not supported")
    if getattr(getattr(module, "_quant_method", None), "is_monolithic", False):
        names = " or ".join(map(repr, alternatives(module)))
        raise CaptureError(
            f"layer {name}: its kernel {type(module._quant_method).__name__} routes inside, "
            f"where nothing can be observed; expected moe_backend={names or 'of another kind'}"
        )


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
    """Wraps the routers of `layers` so that `observe` sees every choice, until `release`."""

    def __init__(self, layers: list[MoELayer], observe: Observe) -> None:
        self._routers = [layer.router for layer in layers]
        for index, router in enumerate(self._routers):
            router._compute_routing = _observed(router._compute_routing, index, observe)

    def release(self) -> None:
        """Take the wrappers off. Compiled code keeps what it was compiled with."""
        for router in self._routers:
            del router._compute_routing
        self._routers = []


def _observed(compute: Callable[..., Any], index: int, observe: Observe) -> Callable[..., Any]:
    def compute_routing(*args: Any, **kwargs: Any) -> Any:
        weights, ids = compute(*args, **kwargs)
        observe(index, ids, weights)
        return weights, ids

    return compute_routing
