"""What later gates would choose, applied to the hidden state of an earlier layer.

At every layer the gates of later layers are called on the hidden state that enters the layer's MoE
block: as it is, and with the later layer's own norm before it. Their modules are called, not their
weights: an engine may keep those in a form of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from routestats.engines._forward_fault import ForwardFault
from routestats.engines.vllm.routers import MoELayer
from routestats.engines.vllm.stages import LayerModules, Wrapping
from routestats.errors import CaptureError
from routestats.schema import LOOKAHEAD_VARIANTS, LookaheadLayout
from routestats.shape import RouteShape

Ids = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

# A router with any of these set does not choose by its logits alone.
_SELECTS_OTHERWISE = (
    "e_score_correction_bias",
    "use_grouped_topk",
    "num_expert_group",
    "custom_routing_function",
    "_hash_indices_table",
)


def layout_of(
    modules: list[LayerModules], hops: tuple[int, ...], shape: RouteShape
) -> LookaheadLayout:
    """What can be kept of this model.

    The four times K best are kept where the router chooses by its logits alone, which rank all
    experts; any other router is asked for its K. Without a norm to be found there is no variant
    with the later layer's norm.

    Raises
    ------
    CaptureError
        If a hop reaches beyond the model.
    """
    if hops[-1] >= shape.num_layers:
        raise CaptureError(
            f"lookahead: expected hops from 1 to {shape.num_layers - 1} in a model of "
            f"{shape.num_layers} MoE layers, got {hops[-1]}"
        )
    ranks = shape.top_k
    if all(chooses_by_logits(place.layer.router) for place in modules):
        sizes = (2 * shape.top_k, 4 * shape.top_k)
        ranks = max([shape.top_k, *(size for size in sizes if size < shape.num_experts)])
    normed = all(place.norm is not None for place in modules)
    return LookaheadLayout(hops, ranks, LOOKAHEAD_VARIANTS if normed else LOOKAHEAD_VARIANTS[:1])


def chooses_by_logits(router: Any) -> bool:
    """Whether the experts that `router` takes are those of the largest logits."""
    return not any(
        (value := getattr(router, name, None)) is not None and value is not False
        for name in _SELECTS_OTHERWISE
    )


class Lookahead:
    """Applies later gates at every layer of the steps between `open` and `close`.

    Parameters
    ----------
    modules : list of LayerModules
    layout : LookaheadLayout
    shape : RouteShape
    max_rows : int
        Rows of the largest step.
    device : torch.device
    """

    def __init__(
        self,
        modules: list[LayerModules],
        layout: LookaheadLayout,
        shape: RouteShape,
        max_rows: int,
        device: Any,
    ) -> None:
        self.layout = layout
        self._modules = modules
        self._shape = shape
        self._wrapping = Wrapping()
        self._open = False
        self._written = 0
        self._fault = ForwardFault()
        extents = (max_rows, *layout.extents(shape.num_layers))
        self._ids = torch.zeros(extents, dtype=torch.int32, device=device)
        self._residual: Any = None
        targets: dict[int, list[int]] = {}
        for source, target in layout.pairs(shape.num_layers):
            targets.setdefault(source, []).append(target)
        self._targets = targets
        self._first_pair = {}
        pair = 0
        for source, later in targets.items():
            self._first_pair[source] = pair
            pair += len(later)

    def bind(self) -> None:
        """Wrap the norms and MoE blocks of the layers that look ahead."""
        for source in self._targets:
            place = self._modules[source]
            if len(self.layout.variants) > 1:
                self._wrapping.wrap(place.norm, "_call_impl", self._noting_residual)
            self._wrapping.wrap(place.block, "forward", partial(self._looking, source))

    def release(self) -> None:
        """Take the wrappers off."""
        self._wrapping.release()

    def open(self) -> None:
        """The next forward pass belongs to a step that is captured."""
        self._open, self._written = True, 0

    def close(self, rows: int) -> Callable[[], Ids]:
        """What gives the ids ``[rows, V, P, M]`` of the step that has run, once, on any thread.

        Nothing here waits for a device: the ids are copied in the order of its stream, before the
        next step changes them, and only the call of what is returned waits for them.

        Raises
        ------
        CaptureError
            If a layer did not run where it was looked for, or its gates could not be applied.
        """
        self._open = False
        self._fault.check()
        if self._written != len(self._targets):
            raise CaptureError(
                f"lookahead: expected {len(self._targets)} layers to look ahead, "
                f"got {self._written}"
            )
        return fetching(self._ids[:rows], self._shape.id_dtype)

    def _noting_residual(self, norm: Callable[..., Any]) -> Callable[..., Any]:
        """Note the hidden state that the norm was given, with everything that was added to it."""

        def normalise(*args: Any, **kwargs: Any) -> Any:
            result = norm(*args, **kwargs)
            if self._open:
                self._residual = result[1] if isinstance(result, tuple) else args[0]
            return result

        return normalise

    def _looking(self, source: int, block: Callable[..., Any]) -> Callable[..., Any]:
        def look_and_run(*args: Any, **kwargs: Any) -> Any:
            if self._open:
                try:
                    hidden = args[0] if args else kwargs["hidden_states"]
                    self._look(source, hidden.view(-1, hidden.shape[-1]))
                except Exception as error:  # inside the forward pass
                    self._fault.keep(source, error)
            return block(*args, **kwargs)

        return look_and_run

    def _look(self, source: int, hidden: Any) -> None:
        later = [self._modules[target] for target in self._targets[source]]
        first = self._first_pair[source]
        into = self._ids[: len(hidden), :, first : first + len(later)]
        into[:, 0] = self._choices(later, [hidden] * len(later))
        if len(self.layout.variants) > 1:
            residual, self._residual = self._residual, None
            if residual is None:
                raise CaptureError(
                    f"lookahead: layer {self._modules[source].layer.name}: its norm did not run "
                    "before its experts"
                )
            flat = residual.reshape(-1, residual.shape[-1])
            into[:, 1] = self._choices(later, [place.norm.forward(flat) for place in later])
        self._written += 1

    def _choices(self, later: list[LayerModules], hidden: list[Any]) -> Any:
        """Ids ``[rows, targets, M]`` of the best experts, best first; ties to the lowest id."""
        logits = [_logits(place.gate(x)) for place, x in zip(later, hidden, strict=True)]
        if self.layout.ranks > self._shape.top_k or all(
            chooses_by_logits(place.layer.router) for place in later
        ):
            scores = torch.stack(logits, dim=1)
            order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
            return order[..., : self.layout.ranks].to(torch.int32)
        chosen = [
            asked(place.layer, x, score)
            for place, x, score in zip(later, hidden, logits, strict=True)
        ]
        return torch.stack(chosen, dim=1)


def fetching(ids: Any, dtype: np.dtype[Any]) -> Callable[[], Ids]:
    """A copy of `ids` as they are now, in the order of their stream, for `dtype` on the host."""
    if ids.device.type == "cpu":
        copy: Ids = ids.numpy().astype(dtype)  # never the memory that the next step changes
        return lambda: copy
    # As many bytes as are kept. int16 holds the bits of uint16, which torch hardly knows.
    narrow = ids.to(torch.uint8 if dtype.itemsize == 1 else torch.int16)
    host = torch.empty(narrow.shape, dtype=narrow.dtype, pin_memory=True)
    host.copy_(narrow, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def fetch() -> Ids:
        arrived.synchronize()
        fetched: Ids = host.numpy().view(dtype)
        return fetched

    return fetch


def _logits(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def asked(layer: MoELayer, hidden: Any, logits: Any) -> Any:
    """The K experts that a router itself chooses, by descending weight; ties to the lowest id."""
    router = layer.router
    # The class's own method, because that of the instance reports to the capture.
    weights, ids = type(router)._compute_routing(router, hidden, logits, None)
    by_id = torch.sort(ids, dim=-1)
    weights = weights.gather(-1, by_id.indices)
    order = torch.sort(weights, dim=-1, descending=True, stable=True).indices
    return by_id.values.gather(-1, order).to(torch.int32)
