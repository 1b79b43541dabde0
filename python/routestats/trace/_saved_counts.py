"""Whether the counts and paths that lie beside a run are those of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from routestats.counts import LiveCounts, PathKind, RouteCounts
from routestats.errors import InvalidValueError, TraceError
from routestats.schema import COUNTS_FILE, PATHS_FILES, SAVED_PATHS
from routestats.trace import files
from routestats.trace._checks import Check
from routestats.trace._trace import Trace


class SavedCounts:
    """The counts that a capture saved, and those of the rows, which `add` counts again.

    Parameters
    ----------
    trace : Trace
        Of all rows and layers of a run; another one has nothing to compare with.
    """

    def __init__(self, trace: Trace) -> None:
        self._problems: dict[str, str] = {}
        self._counts: RouteCounts | None = None
        self._paths: dict[PathKind, pa.Table] = {}
        self._live: LiveCounts | None = None
        self._uncounted: str | None = None
        run_dir = trace.path
        if run_dir is None or not trace.whole or not _has_all_layers(trace):
            return
        if (path := run_dir / COUNTS_FILE).exists():
            try:
                self._counts = RouteCounts.load(path)
            except TraceError as error:
                self._problems[COUNTS_FILE] = str(error)
            else:
                if (self._counts.shape, self._counts.layer_ids) != (trace.shape, trace.layer_ids):
                    self._counts = None
                    self._problems[COUNTS_FILE] = "is of another shape or other layers"
        for kind, name in PATHS_FILES.items():
            if (path := run_dir / name).exists():
                try:
                    self._paths[kind] = _read_paths(path)
                except TraceError as error:
                    self._problems[name] = str(error)
        if self._counts is not None or self._paths:
            self._live = LiveCounts(
                trace.shape,
                hops=(0,) if self._counts is None else self._counts.hops,
                layer_ids=trace.layer_ids,
                paths=tuple(self._paths),
            )

    def add(self, experts: npt.NDArray[Any]) -> None:
        """Count rows of the run."""
        if self._live is None or self._uncounted is not None:
            return
        try:
            self._live.add(experts)
        except InvalidValueError as error:
            self._uncounted = f"the rows cannot be counted: {error}"

    def checks(self) -> list[Check]:
        """One for each file that is there."""
        found = dict(self._problems)
        if self._live is not None:
            if self._counts is not None:
                found[COUNTS_FILE] = self._uncounted or self._compare_counts(self._live)
            for kind in self._paths:
                found[PATHS_FILES[kind]] = self._uncounted or self._compare_paths(self._live, kind)
        return [
            Check(f"saved {name}", not wrong, wrong or "equals that of the rows", {"file": name})
            for name, wrong in found.items()
        ]

    def _compare_counts(self, live: LiveCounts) -> str:
        saved, counted = self._counts, live.counts()
        assert saved is not None
        if saved.tokens != counted.tokens:
            return f"counts {saved.tokens:,} tokens, but the run has {counted.tokens:,} rows"
        if saved.pairing != counted.pairing:
            return f"expected pairing {counted.pairing!r}, got {saved.pairing!r}"
        if saved == counted:
            return ""
        layer, expert = _first_difference(saved.expert, counted.expert)
        if layer < 0:
            return "pairs of experts are not those of the rows"
        return (
            f"expert[{layer}, {expert}] = {saved.expert[layer, expert]:,}, but it is in "
            f"{counted.expert[layer, expert]:,} rows"
        )

    def _compare_paths(self, live: LiveCounts, kind: PathKind) -> str:
        saved = self._paths[kind]
        counted = live.paths(kind, top=SAVED_PATHS)
        for name in ("tokens", "distinct"):
            noted = saved.schema.metadata.get(name.encode(), b"none").decode(errors="replace")
            if noted != str(getattr(counted, name)):
                return f"{name} {noted}, but the rows have {getattr(counted, name)}"
        if saved.num_rows != len(counted.paths):
            return f"lists {saved.num_rows:,} paths, expected {len(counted.paths):,}"
        # Shares follow from the counts.
        columns = ["rank", "path", "tokens"]
        if saved.select(columns).equals(counted.to_table().select(columns)):
            return ""
        return "lists other paths or counts than the rows have"


def _has_all_layers(trace: Trace) -> bool:
    return trace.layer_ids == tuple(trace.info.get("layer_ids", ()))


def _read_paths(path: Path) -> pa.Table:
    with files.reading(path):
        table = pq.read_table(path)
    missing = [name for name in ("rank", "path", "tokens") if name not in table.column_names]
    if missing or not table.schema.metadata:
        raise TraceError(f"{path}: holds no paths of a run")
    return table


def _first_difference(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> tuple[int, int]:
    """Indices of the first place where two tables differ; -1, -1 if none."""
    places = np.argwhere(a != b)
    return (int(places[0, 0]), int(places[0, 1])) if len(places) else (-1, -1)
