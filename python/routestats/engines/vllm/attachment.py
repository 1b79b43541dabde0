"""How a worker's model is observed: its MoE layers, their wrapped routers, and the tap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from routestats.counts import why_no_cuda
from routestats.engines.recorder_options import RecorderOptions
from routestats.engines.vllm.description import engine_of, is_eager, model_of
from routestats.engines.vllm.routers import MoELayer, RouterBinding, find_layers, shape_of
from routestats.engines.vllm.runner_rows import refuse_layout
from routestats.engines.vllm.taps import DeviceTap, HostTap, StagedTap, Tap
from routestats.errors import CaptureError, RouteStatsError
from routestats.shape import RouteShape


class Attachment:
    """What routestats has attached to one worker's model.

    Parameters
    ----------
    worker : vLLM worker
        After ``init_device``, so that it has a model runner.
    late : bool
        The model is already loaded: hooks were not bound before the engine was set up.

    Attributes
    ----------
    runner, config
        The worker's model runner, and vLLM's configuration.
    layers : list of MoELayer
        Empty until the model is loaded, or where it is refused.
    refusal : str or None
        Why the engine cannot be captured.
    """

    def __init__(self, worker: Any, *, late: bool) -> None:
        self.worker = worker
        self.runner = worker.model_runner
        self.config = worker.vllm_config
        self.layers: list[MoELayer] = []
        self.refusal: str | None = None
        self._shape: RouteShape | None = None
        self._tap: Tap | None = None
        self._binding: RouterBinding | None = None
        self._compiled = not is_eager(self.config)
        if late and self._compiled:
            self.refusal = (
                "the engine was compiled without routestats' hooks: call routestats.enable() "
                "before the engine is created, or create it with enforce_eager=True"
            )
        if late:
            self._find_layers()

    def follow_load(self, loaded: Callable[[], None]) -> None:
        """Find the layers when the model is loaded, then call `loaded`."""
        load_model = self.runner.load_model

        def load_and_find(*args: Any, **kwargs: Any) -> Any:
            result = load_model(*args, **kwargs)
            self._find_layers()
            loaded()
            return result

        self.runner.load_model = load_and_find

    @property
    def shape(self) -> RouteShape:
        """Shape of the model's routing; raises `CaptureError` where it is refused."""
        self.require()
        assert self._shape is not None
        return self._shape

    @property
    def tap(self) -> Tap:
        """Where routers write; raises `CaptureError` where the model is refused."""
        self.require()
        assert self._tap is not None
        return self._tap

    @property
    def model(self) -> dict[str, Any]:
        """Name of the model, for ``run.json``."""
        return model_of(self.config)

    @property
    def engine(self) -> dict[str, Any]:
        """What the engine is, for ``run.json``."""
        return engine_of(self.config, self.worker.device)

    @property
    def largest_step(self) -> int:
        """Rows that one step may have."""
        return int(self.config.scheduler_config.max_num_batched_tokens)

    def require(self) -> None:
        """Raise `CaptureError` if the engine cannot be captured."""
        if self.refusal is not None:
            raise CaptureError(self.refusal)

    def bind(self) -> None:
        """Wrap the routers, if they are not."""
        if self._binding is None:
            self._binding = RouterBinding(self.layers, self.tap.observe)

    def unbind(self) -> None:
        """Take the wrappers off the routers of an eager engine; the next capture binds again."""
        if self._compiled:
            raise CaptureError("unbind: the hooks are compiled in; expected an eager engine")
        if self._binding is not None:
            self._binding.release()
            self._binding = None

    def _find_layers(self) -> None:
        try:
            refuse_layout(self.config)
            experts = self.config.model_config.get_num_experts()
            self.layers = find_layers(self.runner.get_model(), experts)
            self._shape = shape_of(self.layers)
            self._tap = self._new_tap(self._shape)
        except RouteStatsError as error:
            self.refusal = self.refusal or str(error)

    def _new_tap(self, shape: RouteShape) -> Tap:
        device = self.worker.device
        if device is None or device.type == "cpu":
            return HostTap(shape)
        if device.type == "cuda" and why_no_cuda() is None:
            # Graphs keep the ring's addresses, so its memory is made before a capture begins.
            return DeviceTap(shape, RecorderOptions().rows_of_ring(self.largest_step), device)
        return StagedTap(shape, self.largest_step, device)
