"""Where the stages of a MoE layer lie in vLLM's modules.

Everything is found by feature, and a layer whose stages cannot be told apart is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from routestats.engines.vllm.given_routing import GivenRouting
from routestats.engines.vllm.routers import MoELayer, is_adapter, what_works
from routestats.errors import CaptureError

_GATE_NAMES = ("gate", "router")
_NORM_NAMES = ("post_attention_layernorm",)
# Of the runner, optional: what it does around the kernel when experts lie on several devices.
_RUNNER_STAGES = {
    "_maybe_dispatch": "dispatch",
    "_maybe_apply_shared_experts": "experts",
    "_maybe_combine": "combine",
    "_maybe_reduce_final_output": "combine",
}
_KERNEL_STAGES = {"_prepare": "dispatch", "_fused_experts": "experts", "_finalize": "combine"}


@dataclass(frozen=True, slots=True)
class LayerModules:
    """The modules around one router.

    ``decoder`` is the decoder layer, ``block`` its MoE block, ``runner`` what routes and runs
    experts, ``gate`` the module that makes router logits, ``norm`` the norm before the block (None
    where it is not to be found).
    """

    layer: MoELayer
    decoder: Any
    block: Any
    runner: Any
    gate: Any
    norm: Any


def modules_of(model: Any, layers: list[MoELayer]) -> list[LayerModules]:
    """The modules around each of `layers`.

    Raises
    ------
    CaptureError
        If a layer has no gate, or lies in no decoder layer.
    """
    by_name = dict(model.named_modules())
    return [_modules_of(by_name, layer) for layer in layers]


def _modules_of(by_name: dict[str, Any], layer: MoELayer) -> LayerModules:
    if isinstance(layer.router, GivenRouting):
        raise CaptureError(
            f"layer {layer.name}: {type(layer.module).__name__} has no router and runs in one "
            "piece; expected another moe_backend, such as auto"
        )
    parent = layer.name.rpartition(".")[0]
    while is_adapter(by_name[parent]):
        parent = parent.rpartition(".")[0]
    block = by_name[parent]
    gate = getattr(layer.module, "gate", None)
    for name in _GATE_NAMES:
        found = getattr(block, name, None)
        if gate is None and callable(found):
            gate = found
    if gate is None:
        raise CaptureError(
            f"layer {layer.name}: {type(block).__name__} has no gate that can be found; "
            f"expected a module named {' or '.join(_GATE_NAMES)}"
        )
    decoder_name = parent
    while decoder_name and not decoder_name.rpartition(".")[2].isdigit():
        decoder_name = decoder_name.rpartition(".")[0]
    if not decoder_name or decoder_name == parent:
        raise CaptureError(f"layer {layer.name}: expected it inside a numbered decoder layer")
    decoder = by_name[decoder_name]
    norm = next((getattr(decoder, n) for n in _NORM_NAMES if hasattr(decoder, n)), None)
    return LayerModules(layer, decoder, block, layer.module, gate, norm)


def stage_functions(modules: LayerModules) -> Iterator[tuple[Any, str, str]]:
    """``(object, method, stage)`` of everything in a layer that is clocked.

    Raises
    ------
    CaptureError
        If the kernel does not tell its stages apart.
    """
    yield modules.gate, _call_of(modules.gate), "gate"
    yield modules.layer.router, "select_experts", "topk"
    kernel = kernel_of(modules.layer)
    for method, stage in _KERNEL_STAGES.items():
        yield kernel, method, stage
    if not _alone(modules.runner):
        for method, stage in _RUNNER_STAGES.items():
            if hasattr(modules.runner, method):
                yield modules.runner, method, stage
    yield *_kernel_entry(modules.layer, kernel), "kernel"
    # An adapter calls past what torch runs when a module is called.
    adapted = modules.layer.name.endswith(".base_layer")
    yield modules.runner, "forward" if adapted else _call_of(modules.runner), "runner"
    yield from outline_functions(modules)


def outline_functions(modules: LayerModules) -> Iterator[tuple[Any, str, str]]:
    """The outermost of `stage_functions`: the MoE block and the decoder layer around it."""
    yield modules.block, "forward", "block"
    yield modules.decoder, "forward", "rest"


def _alone(runner: Any) -> bool:
    """Whether the runner has one device and no shared experts: then its stages do nothing."""
    config = getattr(runner, "moe_config", None)
    sizes = [getattr(config, f"{kind}_size", None) for kind in ("tp", "dp", "ep", "pcp")]
    return sizes == [1] * len(sizes) and getattr(runner, "_shared_experts", 0) is None


def _kernel_entry(layer: MoELayer, kernel: Any) -> tuple[Any, str]:
    """What the runner calls with the chosen experts."""
    experts = getattr(layer.module, "routed_experts", None)
    if hasattr(experts, "forward_modular"):
        return experts, "forward_modular"
    return kernel, "apply"


def _call_of(module: Any) -> str:
    """What torch runs when a module is called, hooks and all; it costs Python time as well."""
    return "_call_impl" if hasattr(module, "_call_impl") else "forward"


def kernel_of(layer: MoELayer) -> Any:
    """The kernel of a layer, which dispatches, computes and combines in steps of its own.

    Raises
    ------
    CaptureError
        If it does all that, or routing too, in one piece.
    """
    experts = getattr(layer.module, "routed_experts", layer.module)
    method = getattr(experts, "quant_method", None)
    kernel = getattr(getattr(method, "moe_kernel", None), "impl", None)
    missing = [name for name in (*_KERNEL_STAGES, "apply") if not hasattr(kernel, name)]
    if kernel is None or missing or getattr(method, "is_monolithic", False):
        raise CaptureError(
            f"layer {layer.name}: its kernel {type(kernel or method).__name__} runs in one piece, "
            f"so that its stages cannot be told apart{what_works(layer.module)}"
        )
    return kernel


class Wrapping:
    """Methods replaced on objects and classes, until `release`."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def wrap(self, target: Any, method: str, make: Callable[[Any], Any]) -> None:
        """Put ``make(the method as it is)`` in its place, on one object."""
        inner = getattr(target, method)
        if method in vars(target):
            self._undo.append(lambda: object.__setattr__(target, method, inner))
        else:
            self._undo.append(lambda: object.__delattr__(target, method))
        # A module looks among its parameters and children first; this goes past them.
        object.__setattr__(target, method, make(inner))

    def wrap_class(self, owner: type, method: str, make: Callable[[Any], Any]) -> None:
        """Put ``make(the function as it is)`` in its place, on all objects of a class."""
        inner = getattr(owner, method)
        if method in vars(owner):
            self._undo.append(lambda: setattr(owner, method, inner))
        else:
            self._undo.append(lambda: delattr(owner, method))
        setattr(owner, method, make(inner))

    def release(self) -> None:
        """Put everything back as it was."""
        while self._undo:
            self._undo.pop()()
