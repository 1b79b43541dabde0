"""The entry point that vLLM loads in each of its processes (group ``vllm.general_plugins``).

It always adds a few methods for ``collective_rpc`` to the worker wrapper; they cost nothing until
they are called. It follows the worker's start-up only when capture was asked for, by
``routestats.enable()`` or ``ROUTESTATS_RUN``. With ``ROUTESTATS_RUN``, a server's ``/metrics`` also
has the run's metrics.
"""

from __future__ import annotations

import os
from typing import Any

from routestats.errors import CaptureError, RouteStatsError

ENABLE_VARIABLE = "ROUTESTATS_ENABLE"
"""Set to 1 by `routestats.enable`; processes that an engine starts inherit it."""
RUN_VARIABLE = "ROUTESTATS_RUN"
"""Folder of the run that a server captures into, with no code of its own."""
_AGENT = "_routestats_agent"
_REFUSAL = "_routestats_refusal"


def asked_for() -> bool:
    """Whether this process's engines are to be captured."""
    return os.environ.get(ENABLE_VARIABLE) == "1" or bool(os.environ.get(RUN_VARIABLE))


def register() -> None:
    """Attach to vLLM's workers; may be called any number of times."""
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    for name, method in _RPC.items():
        setattr(WorkerWrapperBase, name, method)
    if run_dir := os.environ.get(RUN_VARIABLE):
        from routestats.engines.vllm.metrics import add_to_server

        add_to_server(run_dir)
    if not asked_for() or hasattr(WorkerWrapperBase.init_device, "routestats"):
        return
    init_device = WorkerWrapperBase.init_device

    def init_device_and_attach(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = init_device(self, *args, **kwargs)
        if asked_for():
            _attach_early(self.worker)
        return result

    init_device_and_attach.routestats = True  # type: ignore[attr-defined]
    WorkerWrapperBase.init_device = init_device_and_attach


def _attach_early(worker: Any) -> None:
    """Attach before the model is loaded; the engine starts all the same where that fails.

    Raises
    ------
    CaptureError
        If it fails, and a server was asked to capture: it has no later step at which to refuse.
    """
    try:
        _attach(worker, late=False)
    except CaptureError:
        raise  # of a server, and it says why
    except Exception as error:
        reason = f"routestats failed: {type(error).__name__}: {error}"
        if os.environ.get(RUN_VARIABLE):
            raise CaptureError(f"{RUN_VARIABLE} is set, but {reason}") from error
        setattr(worker, _REFUSAL, reason)


def _attach(worker: Any, *, late: bool) -> Any:
    from routestats.engines.vllm.agent import Agent

    extra = worker.vllm_config.additional_config
    if not late and isinstance(extra, dict):
        # Part of the key of vLLM's compile cache: code with and without hooks must not be mixed.
        extra["routestats"] = 1
    agent = Agent(worker, late=late)
    setattr(worker, _AGENT, agent)
    return agent


def _agent(wrapper: Any) -> Any:
    worker = wrapper.worker
    if (refusal := vars(worker).get(_REFUSAL)) is not None:
        raise CaptureError(refusal)
    agent = vars(worker).get(_AGENT)
    return agent if agent is not None else _attach(worker, late=True)


def _answer(call: Any) -> dict[str, Any]:
    """Errors travel as values: an engine changes exceptions, and may end because of one."""
    try:
        return call() or {}
    except RouteStatsError as error:
        return {"refused": str(error)}
    except OSError as error:
        return {"refused": f"{error.filename or 'capture'}: {error.strerror or error}"}
    except Exception as error:
        return {"refused": f"routestats failed: {type(error).__name__}: {error}"}


def _start(self: Any, request: dict[str, Any]) -> dict[str, Any]:
    return _answer(lambda: _agent(self).start(request))


def _stop(self: Any, outcomes: list[list[Any]], reason: str | None) -> dict[str, Any]:
    return _answer(lambda: _agent(self).stop(outcomes, reason))


def _progress(self: Any) -> dict[str, Any]:
    return _answer(lambda: _agent(self).progress())


def _about(self: Any) -> dict[str, Any]:
    return _answer(lambda: _agent(self).about())


def _unbind(self: Any) -> dict[str, Any]:
    return _answer(lambda: _agent(self).unbind())


def _start_timing(self: Any, request: dict[str, Any]) -> dict[str, Any]:
    return _answer(lambda: _agent(self).start_timing(request))


def _stop_timing(self: Any, keep: bool) -> dict[str, Any]:
    return _answer(lambda: _agent(self).stop_timing(keep))


_RPC = {
    "routestats_start": _start,
    "routestats_stop": _stop,
    "routestats_progress": _progress,
    "routestats_about": _about,
    "routestats_unbind": _unbind,
    "routestats_start_timing": _start_timing,
    "routestats_stop_timing": _stop_timing,
}


def binds() -> bool:
    """Whether this vLLM has every feature that capture attaches to.

    Raises
    ------
    CaptureError
        If vLLM cannot be imported.
    """
    try:
        from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter
        from vllm.v1.worker.worker_base import WorkerWrapperBase
    except ImportError as error:
        raise CaptureError(f"vllm: cannot be imported: {error}") from None
    return (
        hasattr(BaseRouter, "_compute_routing")
        and hasattr(BaseRouter, "set_capture_fn")
        and hasattr(WorkerWrapperBase, "init_device")
    )
