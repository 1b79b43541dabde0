"""How a worker's model is observed: its MoE layers, their wrapped routers, and the tap."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from routestats.engines.recorder_options import RecorderOptions
from routestats.engines.vllm.description import engine_of, is_eager, model_of
from routestats.engines.vllm.refusals import refuse_model, refuse_settings
from routestats.engines.vllm.routers import MoELayer, RouterBinding, find_layers, shape_of
from routestats.engines.vllm.tap_choice import TapChoice, choose_tap
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
        Why the engine cannot be captured. What its settings tell is there before it has a model.
    tap_choice : TapChoice or None
        Which tap it has, and why it is not the fastest; None without a model.
    """

    def __init__(self, worker: Any, *, late: bool) -> None:
        self.worker = worker
        self.runner = worker.model_runner
        self.config = worker.vllm_config
        self.layers: list[MoELayer] = []
        self.refusal: str | None = None
        self.tap_choice: TapChoice | None = None
        self._shape: RouteShape | None = None
        self._tap: Tap | None = None
        self._binding: RouterBinding | None = None
        self._compiled = not is_eager(self.config)
        if late and self._compiled:
            self.refusal = (
                "the engine was compiled, or replays graphs, without routestats' hooks: call "
                "routestats.enable() before the engine is created, or create it with "
                "enforce_eager=True"
            )
        self._refusing(lambda: refuse_settings(self.config))
        if late:
            self._find_layers()

    def follow_load(self, loaded: Callable[[], None]) -> None:
        """Find the layers when the model is loaded, then call `loaded`.

        It is the worker's loading that is followed, not the runner's: that one runs inside the
        memory pool of sleep mode, which would take our memory away while the engine sleeps.
        """
        load_model = self.worker.load_model

        def load_and_find(*args: Any, **kwargs: Any) -> Any:
            result = load_model(*args, **kwargs)
            self._find_layers()
            loaded()
            return result

        self.worker.load_model = load_and_find

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
    def tap_reason(self) -> dict[str, str]:
        """Why the tap is not the fastest that there is, for ``run.json``; empty where it is."""
        reason = None if self.tap_choice is None else self.tap_choice.reason
        return {} if reason is None else {"tap_reason": reason}

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
            self._binding = RouterBinding(self.layers, self.tap)

    def unbind(self) -> None:
        """Take the wrappers off the routers of an eager engine; the next capture binds again."""
        if self._compiled:
            raise CaptureError("unbind: the hooks are compiled in; expected an eager engine")
        if self._binding is not None:
            self._binding.release()
            self._binding = None

    def tell(self, *, writes: bool) -> None:
        """Say once, in the engine's log, what cannot be captured or falls back to something slower.

        One rank, which `writes`, speaks for all.
        """
        warning = None if self.tap_choice is None else self.tap_choice.warning()
        if self.refusal is not None:
            warning = f"this engine cannot be captured: {self.refusal}"
        if writes and warning is not None:
            logging.getLogger("vllm.routestats").warning("%s", warning)

    def _find_layers(self) -> None:
        if self.refusal is None:
            self._refusing(self._attach)

    def _refusing(self, look: Callable[[], None]) -> None:
        """Note why `look` fails, whatever it is: the engine starts without us."""
        try:
            look()
        except RouteStatsError as error:
            self.refusal = self.refusal or str(error)
        except Exception as error:  # the engine starts without us
            self.refusal = self.refusal or f"routestats failed: {type(error).__name__}: {error}"

    def _attach(self) -> None:
        model = self.runner.get_model()
        refuse_model(model)
        self.layers = find_layers(model, self.config.model_config.get_num_experts())
        self._shape = shape_of(self.layers)
        device = self.worker.device
        self.tap_choice = choose_tap("cpu" if device is None else device.type)
        self._tap = self._new_tap(self._shape)

    def _new_tap(self, shape: RouteShape) -> Tap:
        device, choice = self.worker.device, self.tap_choice
        assert choice is not None
        if choice.tap == "HostTap":
            return HostTap(shape)
        if choice.tap == "DeviceTap":
            # Graphs keep the ring's addresses, so its memory is made before a capture begins.
            rows = RecorderOptions().rows_of_ring(self.largest_step)
            try:
                return DeviceTap(shape, rows, device)
            except Exception as error:  # kernels that do not load here, or no memory for the ring
                self.tap_choice = TapChoice("StagedTap", f"the ring cannot be made: {error}")
        return StagedTap(shape, self.largest_step, device)
