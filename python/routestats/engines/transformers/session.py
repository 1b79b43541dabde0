"""One run on one transformers model: its hooks, and the rows of the batch under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch

from routestats._core import CaptureRing
from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.engines.recorder import Recorder
from routestats.engines.transformers.routers import Router, choices
from routestats.errors import CaptureError


@dataclass(slots=True)
class _Sequences:
    """The batch that a cache belongs to."""

    request_ids: list[str]
    lengths: npt.NDArray[np.int64] = field(init=False)  # tokens run so far
    ended: npt.NDArray[np.bool_] = field(init=False)
    cache: Any = None

    def __post_init__(self) -> None:
        self.lengths = np.zeros(len(self.request_ids), np.int64)
        self.ended = np.zeros(len(self.request_ids), bool)


@dataclass(slots=True)
class Session:
    """One run on one model: its recorder, its hooks, and the batch under way."""

    recorder: Recorder
    ring: CaptureRing
    routers: list[Router]
    stop_ids: frozenset[int]
    name: str = field(default_factory=lambda: uuid4().hex[:8])
    hooks: list[Any] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    sequences: _Sequences | None = None
    step: StepRows | None = None
    rows: Any = None  # indices of the real rows of the forward pass under way
    size: int = 0

    def attach(self, model: Any) -> None:
        self.hooks = [
            model.register_forward_pre_hook(self.begin, with_kwargs=True),
            model.register_forward_hook(self.end),
        ]
        for index, router in enumerate(self.routers):
            self.hooks.append(router.module.register_forward_hook(self._observer(index)))

    def detach(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def begin(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        input_ids = args[0] if args else kwargs.get("input_ids")
        if input_ids is None:
            raise CaptureError("forward: expected input_ids, got inputs_embeds")
        mask = kwargs.get("attention_mask")
        if mask is not None and (not torch.is_tensor(mask) or mask.dim() != 2):
            raise CaptureError("forward: expected a two-dimensional attention_mask")
        tokens = input_ids.detach().cpu().numpy()
        real = np.ones(tokens.shape, bool)
        if mask is not None:
            real = mask[:, -tokens.shape[1] :].detach().cpu().numpy().astype(bool)
        self._follow(tokens, real, kwargs.get("past_key_values"))

    def _follow(self, tokens: Any, real: Any, cache: Any) -> None:
        """Which rows of the forward pass are real, and whose."""
        finished: list[str] = []
        new: list[NewRequest] = []
        fresh = cache is None or cache.get_seq_length() == 0
        if fresh:
            if self.sequences is not None:
                finished = self.sequences.request_ids
            new = self._new_requests(tokens, real)
            self.sequences = _Sequences([request.request_id for request in new])
        sequences = self.sequences
        if sequences is None or len(tokens) != len(sequences.request_ids):
            raise CaptureError("forward: continues a cache whose beginning was not captured")
        if not fresh and sequences.cache is not None and sequences.cache is not cache:
            raise CaptureError("forward: continues another cache than the last forward pass")
        sequences.cache = cache
        if not fresh:
            # A sequence that has ended is fed padding, with attention, until the batch ends.
            stop = np.isin(tokens, list(self.stop_ids)) & real
            sequences.ended |= stop.any(axis=1)
            real = real & ~sequences.ended[:, None]
        counts = real.sum(axis=1)
        run = np.flatnonzero(counts)
        positions = real.cumsum(axis=1) - 1 + sequences.lengths[:, None]
        step = StepRows(
            request_ids=[sequences.request_ids[i] for i in run],
            counts=counts[run].tolist(),
            positions=positions[real].astype(np.int32),
            token_ids=tokens[real].astype(np.int32),
            new=new,
            finished=finished,
        )
        sequences.lengths += counts
        if self.ring.step_open:  # the last forward pass raised an error
            self.ring.abandon_step()
        if step.rows > 0 and self.recorder.begin(step.rows):
            self.step, self.size, self.rows = step, tokens.size, np.flatnonzero(real)
        else:
            self.step = None
            self.recorder.note(step)

    def _new_requests(self, tokens: Any, real: Any) -> list[NewRequest]:
        ids = [f"hf{len(self.requests) + i}-{self.name}" for i in range(len(tokens))]
        self.requests += ids
        return [
            NewRequest(request, self.recorder.domain, row[mask].astype(np.int32))
            for request, row, mask in zip(ids, tokens, real, strict=True)
        ]

    def _observer(self, layer: int) -> Any:
        def observe(module: Any, args: Any, output: Any) -> None:
            if self.step is None:
                return
            ids, weights = choices(module, output, self.size, self.routers[layer].top_k)
            self.ring.write_layer(
                layer,
                np.ascontiguousarray(ids.detach().cpu().numpy()[self.rows], dtype=np.int64),
                np.ascontiguousarray(weights.detach().float().cpu().numpy()[self.rows]),
            )

        return observe

    def end(self, model: Any, args: Any, output: Any) -> None:
        if self.sequences is not None and self.sequences.cache is None:
            self.sequences.cache = getattr(output, "past_key_values", None)
        step, self.step = self.step, None
        if step is not None:
            self.recorder.commit(step)
