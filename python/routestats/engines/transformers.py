"""Capture of Hugging Face transformers models, for those who have no vLLM.

What a router chooses is read from what its module returns: transformers' routers hand
``(logits, weights, ids)`` to their experts, the weights as applied. A model whose routers return
logits alone is refused, because the rule that makes choices of them is then not ours to guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from routestats._core import CaptureRing
from routestats.engines._assembler import NewRequest, StepRows
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import Outcome, RecorderOptions
from routestats.errors import CaptureError, InvalidValueError
from routestats.schema import check_domain
from routestats.shape import RouteShape


@dataclass(frozen=True, slots=True)
class _Router:
    module: Any
    layer_id: int
    num_experts: int
    top_k: int


def find_routers(model: Any) -> list[_Router]:
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


def _router(name: str, module: Any, config: Any) -> _Router:
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
    return _Router(module, int(number[1]), int(experts), int(top_k))


@dataclass(slots=True)
class _Sequences:
    """The batch that a cache belongs to."""

    request_ids: list[str]
    lengths: npt.NDArray[np.int64]  # tokens run so far
    ended: npt.NDArray[np.bool_]
    cache: Any = None


@dataclass(slots=True)
class _Session:
    """One run on one model: its recorder, its hooks, and the batch under way."""

    recorder: Recorder
    routers: list[_Router]
    stop_ids: frozenset[int]
    name: str = field(default_factory=lambda: uuid4().hex[:8])
    hooks: list[Any] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    sequences: _Sequences | None = None
    step: StepRows | None = None
    rows: Any = None  # indices of the real rows of the forward pass under way
    size: int = 0

    @property
    def ring(self) -> CaptureRing:
        """The recorder's own."""
        return cast(CaptureRing, self.recorder.ring)

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
        step = StepRows()
        fresh = cache is None or cache.get_seq_length() == 0
        if fresh:
            self._note_finished(step)
            self.sequences = self._new_sequences(step, tokens, real)
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
        positions, ids = [], []
        for row, request_id in enumerate(sequences.request_ids):
            count = int(real[row].sum())
            if count == 0:
                continue
            start = int(sequences.lengths[row])
            step.request_ids.append(request_id)
            step.counts.append(count)
            positions.append(np.arange(start, start + count, dtype=np.int32))
            ids.append(tokens[row][real[row]].astype(np.int32))
            sequences.lengths[row] += count
        self.step, self.size, self.rows = step, tokens.size, np.flatnonzero(real)
        if not positions:
            self.recorder.note(step)
            self.step = None
            return
        step.positions, step.token_ids = np.concatenate(positions), np.concatenate(ids)
        if self.ring.step_open:  # the last forward pass raised an error
            self.ring.abandon_step()
        if not self.recorder.begin(step.rows):
            self.recorder.note(step)
            self.step = None

    def _note_finished(self, step: StepRows) -> None:
        if self.sequences is not None:
            step.finished = list(self.sequences.request_ids)

    def _new_sequences(self, step: StepRows, tokens: Any, real: Any) -> _Sequences:
        ids = [f"hf{len(self.requests) + i}-{self.name}" for i in range(len(tokens))]
        self.requests += ids
        step.new = [
            NewRequest(request, self.recorder.domain, row[mask].astype(np.int32))
            for request, row, mask in zip(ids, tokens, real, strict=True)
        ]
        return _Sequences(ids, np.zeros(len(ids), np.int64), np.zeros(len(ids), bool))

    def _observer(self, layer: int) -> Any:
        def observe(module: Any, args: Any, output: Any) -> None:
            if self.step is None:
                return
            ids, weights = _choices(module, output, self.size, self.routers[layer].top_k)
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


def _choices(module: Any, output: Any, rows: int, top_k: int) -> tuple[Any, Any]:
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


_sessions: WeakKeyDictionary[Any, _Session] = WeakKeyDictionary()


class TransformersCapture:
    """Context manager that captures every forward pass of `model` inside it.

    Each row of a batch without a past is a new request; forward passes that extend its cache, as
    ``model.generate`` makes them, go on with it. Padding, and what is fed to sequences that have
    ended, gives no row.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    run_dir : Path
    domain : str
    options : RecorderOptions

    Attributes
    ----------
    run_dir : Path
    summary : dict
        The run's totals, once the outermost capture has ended.
    """

    def __init__(self, model: Any, run_dir: Path, domain: str, options: RecorderOptions) -> None:
        self._model = model
        self.run_dir = run_dir.absolute()
        self._domain = check_domain(domain)
        self._options = options
        self._first_request = 0
        self.summary: dict[str, Any] = {}

    def __enter__(self) -> TransformersCapture:
        session = _sessions.get(self._model)
        if session is None:
            session = self._open()
            _sessions[self._model] = session
            session.attach(self._model)
            self._refuse_beams()
        elif session.recorder.run_dir != self.run_dir:
            raise CaptureError(
                f"a capture of this model into {session.recorder.run_dir} is under way; "
                f"expected the same folder, got {self.run_dir}"
            )
        session.recorder.domains.append(self._domain)
        self._first_request = len(session.requests)
        self._session = session
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session = self._session
        session.recorder.domains.pop()
        if session.recorder.domains:
            self.summary = dict(session.recorder.progress())
            return
        del _sessions[self._model]
        session.detach()
        del self._model.generate
        if error is not None:
            session.recorder.fail(f"{type(error).__name__}: {error}")
            session.recorder.ring.abandon_step()
        self.summary = session.recorder.close()
        if self.summary["error"] and error is None:
            raise CaptureError(f"{self.run_dir}: {self.summary['error']}")

    def progress(self) -> dict[str, int]:
        """Rows so far: ``rows``, ``dropped_rows``, ``requests``."""
        return self._session.recorder.progress()

    def label(
        self,
        outputs: Any = None,
        *,
        task_ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        """Say which item of a data set each sequence is, in the order they were run.

        Parameters
        ----------
        outputs : ignored
            For the likeness to vLLM's.
        task_ids, groups : sequence of str, optional
            One per sequence since the capture began.

        Raises
        ------
        InvalidValueError
            If the lengths differ.
        """
        requests = self._session.requests[self._first_request :]
        for name, values in (("task_ids", task_ids), ("groups", groups)):
            if values is not None and len(values) != len(requests):
                raise InvalidValueError(
                    f"{name}: expected {len(requests)}, one per sequence, got {len(values)}"
                )
        for i, request in enumerate(requests):
            known = Outcome()
            if task_ids is not None:
                known["task_id"] = task_ids[i]
            if groups is not None:
                known["group"] = groups[i]
            self._session.recorder.add_outcomes({(request.rpartition("-")[0], 0): known})

    def _open(self) -> _Session:
        import transformers

        model = self._model
        routers = find_routers(model)
        first = routers[0]
        eos = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        recorder = Recorder(
            self.run_dir,
            RouteShape(len(routers), first.num_experts, first.top_k),
            [router.layer_id for router in routers],
            model=_model_of(model.config),
            engine={
                "name": "transformers",
                "version": transformers.__version__,
                "torch": torch.__version__,
                "device": str(model.device),
                "dtype": str(model.dtype).removeprefix("torch."),
            },
            settings={
                "weights": self._options.weights,
                "order": "gate weight as applied, descending; ties to the lowest id",
                "router": type(first.module).__name__,
            },
            options=self._options,
            hold_records=True,
            tokenizer=str(getattr(model.config, "_name_or_path", "") or "") or None,
        )
        stop = [] if eos is None else eos if isinstance(eos, list) else [eos]
        return _Session(recorder, routers, frozenset(stop))

    def _refuse_beams(self) -> None:
        """Beams are reordered between forward passes, where no hook sees it."""
        generate = self._model.generate

        def generate_in_order(*args: Any, **kwargs: Any) -> Any:
            config = kwargs.get("generation_config") or self._model.generation_config
            beams = kwargs.get("num_beams") or getattr(config, "num_beams", None) or 1
            if beams > 1:
                raise CaptureError(f"generate: num_beams={beams}: beam search is not supported")
            if kwargs.get("assistant_model") is not None:
                raise CaptureError("generate: assisted decoding is not supported")
            return generate(*args, **kwargs)

        self._model.generate = generate_in_order


def _model_of(config: Any) -> dict[str, Any]:
    name = config._name_or_path or type(config).__name__.removesuffix("Config")
    path = Path(name)
    model: dict[str, Any] = {"name": path.name if path.is_dir() else name}
    note = getattr(config, "routestats", None)
    return {**model, "note": str(note)} if note else model
