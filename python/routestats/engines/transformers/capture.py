"""Capture around a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import torch

from routestats.engines._requests import external_id
from routestats.engines._rings import host_ring
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions, labels
from routestats.engines.transformers.routers import find_routers
from routestats.engines.transformers.session import Session
from routestats.errors import CaptureError
from routestats.shape import RouteShape

_sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()


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
        self._domain = domain
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
            There because a vLLM capture has it.
        task_ids, groups : sequence of str, optional
            One per sequence since the capture began.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If the lengths differ, or a label is no string.
        """
        requests = self._session.requests[self._first_request :]
        said = labels(len(requests), task_ids, groups)
        self._session.recorder.add_outcomes(
            {external_id(request): known for request, known in zip(requests, said, strict=True)}
        )

    def _open(self) -> Session:
        import transformers

        model = self._model
        routers = find_routers(model)
        first = routers[0]
        eos = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        shape = RouteShape(len(routers), first.num_experts, first.top_k)
        ring = host_ring(shape, self._options)
        recorder = Recorder(
            self.run_dir,
            shape,
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
            ring=ring,
            tokenizer=str(getattr(model.config, "_name_or_path", "") or "") or None,
        )
        stop = [] if eos is None else eos if isinstance(eos, list) else [eos]
        return Session(recorder, ring, routers, frozenset(stop))

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
