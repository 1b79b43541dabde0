"""The rows of a run from its Parquet files, as they appear."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from routestats.errors import TraceError
from routestats.shape import RouteShape
from routestats.trace import files
from routestats.trace.feed import row_dtype, rows_of_batch
from routestats.trace.token_file import TokenFile


class PartFollower:
    """Reads the newest rows of files that were not there the last time.

    Parameters
    ----------
    run_dir : path
    shape : RouteShape

    Attributes
    ----------
    dropped : int
        Of all files seen so far.
    """

    def __init__(self, run_dir: Path, shape: RouteShape) -> None:
        self._run_dir = run_dir
        self._shape = shape
        self._last: dict[str, str] = {}  # name of the last part seen, by domain
        self._pending: list[tuple[Path, int]] = []  # parts seen and not read, and their new rows
        self.dropped = 0

    def read(self, limit: int, seen: Mapping[str, int]) -> tuple[npt.NDArray[np.void], int]:
        """At most `limit` rows of the files that are new, the newest, oldest first.

        Parameters
        ----------
        limit : int
        seen : mapping of str to int
            What a feed gave: by capture, the number of its first row that is still to come.

        Returns
        -------
        rows : structured ndarray of `row_dtype`
        skipped : int
            Rows beyond `limit` that were not seen before either.

        Raises
        ------
        TraceError
            If a file cannot be read, or is of another shape. It is passed over from then on; rows
            of others that were read already come before it, in a call of their own.
        """
        for path in self._new_parts():
            self._last[path.parent.name] = path.name
            self._pending.append((path, self._count(path, seen)))
        new = sum(count for _, count in self._pending)
        newest: list[npt.NDArray[np.void]] = []
        taken = 0
        while self._pending:
            path, count = self._pending.pop()
            if (want := min(count, limit - taken)) <= 0:
                continue
            try:
                newest.append(self._rows(TokenFile(path), want))
            except TraceError:
                if not newest:
                    raise
                self._pending.append((path, count))  # to be raised when these are safe
                break
            taken += len(newest[-1])
        left = sum(count for _, count in self._pending)
        rows: npt.NDArray[np.void] = (
            np.concatenate(newest[::-1]) if newest else np.empty(0, row_dtype(self._shape))
        )
        return rows, new - taken - left

    def _new_parts(self) -> list[Path]:
        """Parts behind the last one seen of each domain, in the order of writing.

        Within a domain names tell it; times, which a copy may have mixed up, between domains only.
        """
        found: list[tuple[int, Path]] = []
        for folder in sorted(self._run_dir.glob("tokens/domain=*")):
            parts = [p for p in files.parts(folder) if p.name > self._last.get(folder.name, "")]
            times = accumulate((path.stat().st_mtime_ns for path in parts), max)
            found.extend(zip(times, parts, strict=True))
        return [path for _, path in sorted(found)]

    def _count(self, path: Path, seen: Mapping[str, int]) -> int:
        """Take note of a file; how many of its rows are new."""
        file = TokenFile(path)
        if file.shape != self._shape:
            raise TraceError(f"{path}: expected {self._shape}, got {file.shape}")
        new = file.rows_from(seen)
        self.dropped += file.dropped_rows
        return new

    def _rows(self, file: TokenFile, want: int) -> npt.NDArray[np.void]:
        columns = ["request_id", "position", "token_id", "phase", "experts"]
        dtype = row_dtype(self._shape)
        batches = file.batches(columns, start=max(file.num_rows - want, 0))
        rows: npt.NDArray[np.void] = np.concatenate(
            [np.zeros(0, dtype), *(rows_of_batch(batch, dtype) for batch in batches)]
        )
        if (highest := int(rows["experts"].max(initial=0))) >= self._shape.num_experts:
            raise TraceError(
                f"{file.path}: expert {highest}, but num_experts is {self._shape.num_experts}"
            )
        return rows
