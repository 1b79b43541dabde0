"""The counts and paths saved with a run: they are of all its rows, or absent."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from routestats.counts import LiveCounts, RouteCounts, count, count_paths
from routestats.engines._rings import HoldingRing
from routestats.engines._steps import Ids
from routestats.engines.recorder_options import RecorderOptions
from routestats.errors import RouteStatsError, TraceError
from routestats.schema import COUNTS_FILE, PATHS_FILES, SAVED_PATHS
from routestats.shape import RouteShape
from routestats.trace import Trace
from routestats.trace.files import one_line, write_atomically

# Counting a run's paths again keeps all distinct ones in memory: at worst, all of its experts.
_RECOUNTED_BYTES = 1 << 28


class RunCounts:
    """Counts the rows of a capture, and saves counts and paths of the whole run.

    The files of an earlier capture are removed before this one adds a row. A capture that fails or
    is killed leaves no file that lacks rows of the run.

    Parameters
    ----------
    run_dir : Path
    shape : RouteShape
    layer_ids : list of int
    options : RecorderOptions
    before : int
        Rows of earlier captures in the run.
    device : {"cpu", "cuda"}
        Where rows are counted.
    """

    def __init__(
        self,
        run_dir: Path,
        shape: RouteShape,
        layer_ids: list[int],
        options: RecorderOptions,
        *,
        before: int,
        device: str,
    ) -> None:
        self._run_dir = run_dir
        self._shape = shape
        self._options = options
        self._before = before
        self._earlier: RouteCounts | None = None
        self._withdrawn = False
        self._live: LiveCounts | None = None
        # Only the most frequent paths are saved, so those of two captures cannot be added.
        kinds = tuple(PATHS_FILES) if options.paths and before == 0 else ()
        if options.counts or kinds:
            self._live = LiveCounts(
                shape,
                hops=(0, 1) if shape.num_layers > 1 else (0,),
                layer_ids=layer_ids,
                paths=kinds,
                device=device,
            )

    def withdraw(self) -> None:
        """Remove the saved files, because rows are about to be added to the run.

        Raises
        ------
        TraceError
            If that fails.
        """
        if self._withdrawn:
            return
        self._withdrawn = True
        if self._options.counts and self._before:
            self._earlier = self._load()
        for name in (COUNTS_FILE, *PATHS_FILES.values()):
            path = self._run_dir / name
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise TraceError(f"{path}: cannot be removed: {one_line(error)}") from None

    def add(
        self,
        kept: Iterable[tuple[npt.NDArray[np.int64], Ids]],
        holding: HoldingRing | None,
        held_from: int,
    ) -> None:
        """Count rows that the trace keeps, in the memory that holds them.

        Parameters
        ----------
        kept : iterable of (ndarray of int64, ndarray)
            The rows' numbers in `holding`, -1 for a row that it may have let go of, and experts
            ``[rows, L, K]``.
        holding : HoldingRing or None
            A ring that still holds the rows from `held_from` on.
        """
        if self._live is None:
            return
        held, gone = [], []
        there = holding is not None and holding.device == self._live.device
        for ring_rows, experts in kept:
            # Drafts are let through when they are confirmed. The ring may have let go of them.
            here = (ring_rows >= held_from) & there
            held.append(ring_rows[here])
            if not here.all():
                gone.append(experts if not here.any() else experts[~here])
        try:
            if any(map(len, held)):
                assert holding is not None
                self._live.add_held(holding.target, np.concatenate(held))
            if gone:
                self._live.add(np.concatenate(gone) if len(gone) > 1 else gone[0])
        except Exception:
            self._live = None  # it lacks rows
            raise

    def save(self, rows: int) -> dict[str, str]:
        """Save what was asked for.

        Parameters
        ----------
        rows : int
            All rows of the run; its files hold them.

        Returns
        -------
        dict of str to str
            Files that were asked for and are not saved, and why.

        Raises
        ------
        RouteStatsError
            If the run cannot be counted, or a file cannot be written.
        """
        if self._options.counts:
            self._all_counts(rows).save(self._run_dir / COUNTS_FILE)
        if not self._options.paths:
            return {}
        size = rows * self._shape.row_width * self._shape.id_dtype.itemsize
        if self._before and size > _RECOUNTED_BYTES:
            why = (
                f"the run has several captures, and counting all its paths again may take "
                f"{size >> 20} MiB; expected at most {_RECOUNTED_BYTES >> 20}"
            )
            return dict.fromkeys(PATHS_FILES.values(), why)
        run = Trace.open(self._run_dir) if self._before else None  # decoded once for both kinds
        for kind, name in PATHS_FILES.items():
            if run is not None:
                paths = count_paths(run, kind, top=SAVED_PATHS)
            else:
                assert self._live is not None
                paths = self._live.paths(kind, top=SAVED_PATHS)
            about = {"tokens": str(paths.tokens), "distinct": str(paths.distinct)}
            table = paths.to_table().replace_schema_metadata(about)
            write_atomically(self._run_dir / name, partial(pq.write_table, table))
        return {}

    def _load(self) -> RouteCounts | None:
        """The saved counts, if they are of all rows so far."""
        path = self._run_dir / COUNTS_FILE
        try:
            counts = RouteCounts.load(path) if path.is_file() else None
        except RouteStatsError:
            return None
        return counts if counts is not None and counts.tokens == self._before else None

    def _all_counts(self, rows: int) -> RouteCounts:
        assert self._live is not None
        counts = self._live.counts()
        hops = counts.hops
        if self._before:
            earlier = self._earlier if self._withdrawn else self._load()
            with suppress(RouteStatsError):  # a user may have saved counts of other hops
                counts = counts if earlier is None else earlier + counts
        if counts.tokens != rows:
            counts = count(Trace.open(self._run_dir), hops=hops, pairing="any")
        return counts
