"""The newest rows of a run's Parquet files, as the files appear."""

from __future__ import annotations

from collections import deque
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from routestats.errors import TraceError
from routestats.shape import RouteShape
from routestats.trace.feed import FEED_COLUMNS, row_dtype, rows_of_batch
from routestats.trace.files import token_files
from routestats.trace.token_file import TokenFile


class RunFiles:
    """Reads each file of a run once.

    Parameters
    ----------
    run_dir : path
    shape : RouteShape

    Attributes
    ----------
    rows, dropped : int
        Totals of the files seen so far, without those that cannot be read.
    """

    def __init__(self, run_dir: Path, shape: RouteShape) -> None:
        self.rows = self.dropped = 0
        self._run_dir = run_dir
        self._shape = shape
        self._dtype = row_dtype(shape)
        self._last: dict[str, str] = {}  # name of the last file seen, by domain
        self._problems: deque[str] = deque()

    def read(self, limit: int) -> tuple[npt.NDArray[np.void], str | None]:
        """Read the newest rows of the files that are new.

        Parameters
        ----------
        limit : int

        Returns
        -------
        rows : structured ndarray of `row_dtype`
            At most `limit`, oldest first.
        problem : str or None
            A file that cannot be read; it is left out. One problem a call.
        """
        found: list[tuple[Path, int]] = []
        for domain, path in self._new_files():
            self._last[domain] = path.name
            try:
                found.append((path, self._open(path).num_rows))
            except TraceError as error:
                self._problems.append(str(error))
        newest: list[npt.NDArray[np.void]] = []
        for path, count in reversed(found):
            if want := min(count, limit - sum(map(len, newest))):
                try:
                    newest.append(self._read(path, want))
                except TraceError as error:
                    self._problems.append(str(error))
                    continue
            self.rows += count
        rows = np.concatenate(newest[::-1]) if newest else np.empty(0, self._dtype)
        return rows, self._problems.popleft() if self._problems else None

    def _new_files(self) -> list[tuple[str, Path]]:
        """Domain and path of the files after the last one seen, in the order of writing.

        Within a domain the names give the order. Between domains only the times of the files do; a
        copy may have changed them.
        """
        found: list[tuple[int, str, Path]] = []
        for domain, paths in token_files(self._run_dir).items():
            paths = [path for path in paths if path.name > self._last.get(domain, "")]
            times = accumulate((path.stat().st_mtime_ns for path in paths), max)
            found.extend((time, domain, path) for time, path in zip(times, paths, strict=True))
        return [(domain, path) for _, domain, path in sorted(found)]

    def _open(self, path: Path) -> TokenFile:
        file = TokenFile(path)
        if file.shape != self._shape:
            raise TraceError(f"{path}: expected {self._shape}, got {file.shape}")
        self.dropped += file.dropped_rows
        return file

    def _read(self, path: Path, count: int) -> npt.NDArray[np.void]:
        """The last `count` rows of a file."""
        file = TokenFile(path)
        batches = file.batches(FEED_COLUMNS, start=file.num_rows - count)
        rows = np.concatenate([rows_of_batch(batch, self._dtype) for batch in batches])
        if (highest := int(rows["experts"].max(initial=0))) >= self._shape.num_experts:
            raise TraceError(
                f"{path}: expert {highest}, but num_experts is {self._shape.num_experts}"
            )
        return rows
