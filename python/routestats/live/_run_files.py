"""The newest rows of a run's Parquet files, as the files appear."""

from __future__ import annotations

from collections import deque
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from routestats.errors import TraceError
from routestats.shape import RouteShape
from routestats.trace import files
from routestats.trace.feed import FEED_COLUMNS, row_dtype, rows_of_batch
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
        found: list[TokenFile] = []
        for path in self._new_files():
            self._last[path.parent.name] = path.name
            try:
                found.append(self._open(path))
            except TraceError as error:
                self._problems.append(str(error))
        newest: list[npt.NDArray[np.void]] = []
        for file in reversed(found):
            if want := min(file.num_rows, limit - sum(map(len, newest))):
                try:
                    newest.append(self._read(file)[-want:])
                except TraceError as error:
                    self._problems.append(str(error))
                    continue
            self.rows += file.num_rows
        rows = np.concatenate(newest[::-1]) if newest else np.empty(0, self._dtype)
        return rows, self._problems.popleft() if self._problems else None

    def _new_files(self) -> list[Path]:
        """Files after the last one seen of each domain, in the order of writing.

        Within a domain the names give the order. Between domains only the times of the files do; a
        copy may have changed them.
        """
        found: list[tuple[int, Path]] = []
        for folder in sorted(self._run_dir.glob("tokens/domain=*")):
            parts = [p for p in files.parts(folder) if p.name > self._last.get(folder.name, "")]
            times = accumulate((path.stat().st_mtime_ns for path in parts), max)
            found.extend(zip(times, parts, strict=True))
        return [path for _, path in sorted(found)]

    def _open(self, path: Path) -> TokenFile:
        """A file of tokens of the run's shape; its drops are added."""
        file = TokenFile(path)
        if file.shape != self._shape:
            raise TraceError(f"{path}: expected {self._shape}, got {file.shape}")
        self.dropped += file.dropped_rows
        return file

    def _read(self, file: TokenFile) -> npt.NDArray[np.void]:
        rows = np.concatenate([rows_of_batch(b, self._dtype) for b in file.batches(FEED_COLUMNS)])
        if (highest := int(rows["experts"].max(initial=0))) >= self._shape.num_experts:
            raise TraceError(
                f"{file.path}: expert {highest}, but num_experts is {self._shape.num_experts}"
            )
        return rows
