"""Prometheus metrics of a run's sliding window: few series, however many experts there are.

Everything is worked out at a scrape; between scrapes nothing is done. Counters are the run's totals
as its feed, or else its files, state them. Gauges are of the newest `window` rows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.counts import RouteCounts, count
from routestats.errors import InvalidValueError, RouteStatsError
from routestats.live import _measures
from routestats.live._follow import Standing
from routestats.live._state import WINDOW_ROWS, LiveState
from routestats.schema import COUNTS_FILE
from routestats.shape import RouteShape
from routestats.stats._base.contingency import divergence_bits, entropy_bits
from routestats.trace import Trace
from routestats.trace.files import one_line

PORT = 9400

Family = tuple[str, str, Sequence[float] | npt.NDArray[np.float64], Sequence[int]]


class RoutingCollector:
    """A collector for ``prometheus_client``: register it, and it answers every scrape.

    Parameters
    ----------
    run_dir : path
        A run, or where one will be.
    baseline : path, optional
        A run, or a file of counts that `RouteCounts.save` wrote (pairing ``any``), to measure
        drift from.
    window : int
        Rows in the gauges.
    per_expert : bool
        Also one series per layer and expert: L x E of them.

    Raises
    ------
    RouteStatsError
        If prometheus_client is not installed.
    TraceError
        If the baseline cannot be read.
    InvalidValueError
        If the baseline is of another pairing, or of another shape than a run that is there.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        baseline: str | Path | None = None,
        window: int = WINDOW_ROWS,
        per_expert: bool = False,
    ) -> None:
        require_prometheus()
        self._baseline = None if baseline is None else load_baseline(baseline)
        self._per_expert = per_expert
        self._state = LiveState(run_dir, window=window, least_seconds=0.0)
        self._lock = threading.Lock()  # scrapes may come at once
        self._warned = False
        self._state.refresh()
        if self._state.shape is not None and (problem := self._misfit(self._state.shape)):
            raise InvalidValueError(problem)

    def collect(self) -> Iterator[Any]:
        """The families of metrics, for ``prometheus_client``."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        with self._lock:
            self._state.refresh()
            standing = self._state.standing
            families = list(self._per_layer()) if self._state.window is not None else []
            held = len(self._state.window) if self._state.window is not None else 0
            shares = self._shares() if self._per_expert else None
        for name, text, total in (
            ("rows", "Rows of the run, one per computed token.", standing.rows),
            ("dropped_rows", "Rows that the run lost.", standing.dropped),
            (
                "illegal_domain_requests",
                "Requests whose id named no legal domain; their rows are in the default domain.",
                standing.illegal_domain_requests,
            ),
        ):
            yield CounterMetricFamily(f"routestats_{name}", text, total)
        for name, text, value in (
            ("up", "Whether an engine is writing the run.", float(_up(standing))),
            (
                "lag_rows",
                "Rows handed over by the engine and not published yet.",
                standing.lag_rows,
            ),
            ("window_rows", "Rows in the gauges.", held),
            ("silent_seconds", "Since the writer's last sign of life.", standing.silent_seconds),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"routestats_{name}", text, value)
        for name, text, values, layers in families:
            family = GaugeMetricFamily(f"routestats_{name}", text, labels=["layer"])
            for layer, value in zip(layers, values, strict=True):
                family.add_metric([str(layer)], float(value))
            yield family
        if shares is not None:
            yield shares

    def close(self) -> None:
        """Close the run's files."""
        with self._lock:
            self._state.close()

    def describe(self) -> list[Any]:
        """Nothing: the families depend on the run, which need not exist yet."""
        return []

    def _per_layer(self) -> Iterator[Family]:
        window, layers = self._state.window, self._state.layer_ids
        assert window is not None
        load = window.load
        yield (
            "load_imbalance",
            "Busiest expert's load over the mean of all experts.",
            _measures.imbalance(load),
            layers,
        )
        yield (
            "load_entropy_bits",
            "Entropy of the experts' shares of load.",
            entropy_bits(load),
            layers,
        )
        found = self._state.information()
        yield (
            "adjacent_information_ratio",
            "Mutual information with the layer before, over this layer's entropy; first choices.",
            found.ratio,
            layers[1:],
        )
        yield (
            "adjacent_information_null_ratio",
            "The same with this layer's choices permuted: what chance and few rows alone give.",
            found.null_ratio,
            layers[1:],
        )
        if self._baseline is None:
            return
        if problem := self._misfit(window.shape):
            if not self._warned:  # another run may have come into the folder
                logging.getLogger("routestats").warning("no drift: %s", problem)
                self._warned = True
        else:
            yield (
                "load_drift_bits",
                "Jensen-Shannon divergence of the window's load from the baseline's.",
                divergence_bits(load, self._baseline.expert),
                layers,
            )

    def _misfit(self, shape: RouteShape) -> str | None:
        if self._baseline is None or self._baseline.shape == shape:
            return None
        return f"baseline: expected {shape}, as the run has, got {self._baseline.shape}"

    def _shares(self) -> Any:
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(
            "routestats_expert_load_ratio",
            "Load of an expert over the mean of its layer.",
            labels=["layer", "expert"],
        )
        if self._state.window is not None:
            for layer, row in zip(
                self._state.layer_ids, _measures.times_even(self._state.window.load), strict=True
            ):
                for expert, value in enumerate(row):
                    family.add_metric([str(layer), str(expert)], float(value))
        return family


def load_baseline(path: str | Path) -> RouteCounts:
    """Counts to measure drift from: a file of them, those beside a run, or the run counted now.

    Raises
    ------
    TraceError
        If there is nothing that can be read.
    InvalidValueError
        If the counts are of pairing ``top1``.
    """
    path = Path(path)
    if path.is_dir():
        beside = path / COUNTS_FILE
        trace = Trace.open(path)
        counts = RouteCounts.load(beside) if beside.is_file() else None
        # The file holds the last capture into the run, which may be one of several.
        if counts is None or counts.tokens != len(trace):
            counts = count(trace, hops=(0,), pairing="any")
    else:
        counts = RouteCounts.load(path)
    if counts.pairing != "any":
        raise InvalidValueError(f"baseline: expected pairing 'any', got {counts.pairing!r}")
    return counts


@contextmanager
def serve(
    run_dir: str | Path, *, port: int = PORT, address: str = "127.0.0.1", **options: Any
) -> Iterator[int]:
    """Serve a run's metrics over HTTP for as long as the ``with`` block lasts.

    Parameters
    ----------
    run_dir : path
    port : int
        0 for any that is free.
    address : str
        By default only this machine can reach it.
    **options
        Of `RoutingCollector`.

    Yields
    ------
    int
        The port.

    Raises
    ------
    RouteStatsError
        If prometheus_client is not installed, or the port cannot be had.
    """
    require_prometheus()
    from prometheus_client import CollectorRegistry, start_http_server

    collector = RoutingCollector(run_dir, **options)
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=address, registry=registry)
    except (OSError, OverflowError) as error:
        collector.close()
        raise RouteStatsError(f"{address}:{port}: cannot be served: {one_line(error)}") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        collector.close()


def require_prometheus() -> None:
    """Raise `RouteStatsError` if prometheus_client is not installed."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise RouteStatsError(
            "metrics need prometheus_client, which is not installed: pip install 'routestats[live]'"
        ) from None


def _up(standing: Standing) -> bool:
    return standing.state in ("live", "idle")
