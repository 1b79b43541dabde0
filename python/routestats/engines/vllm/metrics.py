"""The run's metrics among a server's own, under ``/metrics``.

The process that answers HTTP is another than the worker that captures; it reads the run's feed. It
serves the registry that vLLM's `get_prometheus_registry` gives: the process-wide one, or, where
several API servers share their figures through files (``PROMETHEUS_MULTIPROC_DIR``), one made for
that, often anew for every scrape, which is known by the `MultiProcessCollector` put into it.
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
        from prometheus_client.multiprocess import MultiProcessCollector
        from vllm.v1.metrics import prometheus
    except ImportError:  # another vLLM: the run has its own `routestats metrics`
        return
    get_registry = getattr(prometheus, _NAME, None)
    if get_registry is None or hasattr(get_registry, "routestats"):
        return
    routing = _Routing(run_dir)

    @wraps(get_registry)
    def get_registry_with_routing(*args: Any, **kwargs: Any) -> Any:
        registry = get_registry(*args, **kwargs)
        routing.add_to(registry)
        return registry

    get_registry_with_routing.routestats = True  # type: ignore[attr-defined]
    setattr(prometheus, _NAME, get_registry_with_routing)
    if _USER in sys.modules:
        setattr(sys.modules[_USER], _NAME, get_registry_with_routing)

    begin = MultiProcessCollector.__init__

    @wraps(begin)
    def begin_with_routing(self: Any, registry: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, registry, *args, **kwargs)
        routing.add_to(registry)

    MultiProcessCollector.__init__ = begin_with_routing


class _Routing:
    """The one collector of this process, made when a registry first asks for it."""

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        self._collector: Any = None
        self._failed = False

    def add_to(self, registry: Any) -> None:
        if registry is None or self._failed:
            return
        try:
            if self._collector is None:
                from routestats.live.metrics import RoutingCollector

                baseline = os.environ.get(BASELINE_VARIABLE) or None
                self._collector = RoutingCollector(self._run_dir, baseline=baseline)
        except RouteStatsError as error:
            self._failed = True
            logging.getLogger("vllm.routestats").warning("no routing under /metrics: %s", error)
            return
        if self._collector not in getattr(registry, "_collector_to_names", ()):
            registry.register(self._collector)
