"""The run's metrics among a server's own, under ``/metrics``.

The process that answers HTTP is another than the worker that captures; it reads the run's feed. It
asks `get_prometheus_registry` for what it serves: the process-wide registry, or, where several API
servers share their figures through files (``PROMETHEUS_MULTIPROC_DIR``), one that serves only
those, which is why a collector in the process-wide one would not do.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import wraps
from typing import Any

from routestats.errors import RouteStatsError

BASELINE_VARIABLE = "ROUTESTATS_BASELINE"
"""A run, or saved counts, that the served drift is measured from."""

_NAME = "get_prometheus_registry"
_USER = "vllm.entrypoints.serve.instrumentator.metrics"


def add_to_server(run_dir: str) -> None:
    """Have every registry that this process serves answer for `run_dir`, too; any number of times.

    Parameters
    ----------
    run_dir : str
        A run, or where one will be.
    """
    try:
        from vllm.v1.metrics import prometheus
    except ImportError:  # another vLLM: the run has its own `routestats metrics`
        return
    get_registry = getattr(prometheus, _NAME, None)
    if get_registry is None or hasattr(get_registry, "routestats"):
        return
    collectors: list[Any] = []

    @wraps(get_registry)
    def get_registry_with_routing(*args: Any, **kwargs: Any) -> Any:
        registry = get_registry(*args, **kwargs)
        try:
            if not collectors:
                from routestats.live.metrics import RoutingCollector

                baseline = os.environ.get(BASELINE_VARIABLE) or None
                collectors.append(RoutingCollector(run_dir, baseline=baseline))
            if collectors[0] not in getattr(registry, "_collector_to_names", {}):
                registry.register(collectors[0])
        except RouteStatsError as error:
            logging.getLogger("vllm.routestats").warning("no routing under /metrics: %s", error)
        return registry

    get_registry_with_routing.routestats = True  # type: ignore[attr-defined]
    setattr(prometheus, _NAME, get_registry_with_routing)
    if _USER in sys.modules:
        setattr(sys.modules[_USER], _NAME, get_registry_with_routing)
