"""The rows of a run from its Parquet files, as they appear."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from routestats.errors import TraceError
from routestats.schema import PHASES
from routestats.shape import RouteShape
from routestats.trace import _files
from routestats.trace.feed import request_number, row_dtype


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
                newest.append(self._rows(_files.open_parquet(path))[-want:])
            except TraceError:
                if not newest:
                    raise
                self._pending.append((path, count))  # to be raised when these are safe
                break
            taken += len(newest[-1])
        left = sum(count for _, count in self._pending)
        rows = np.concatenate(newest[::-1]) if newest else np.empty(0, row_dtype(self._shape))
        return rows, new - taken - left

    def _new_parts(self) -> list[Path]:
        """Parts behind the last one seen of each domain, in the order of writing.

        Within a domain names tell it; times, which a copy may have mixed up, between domains only.
        """
        found: list[tuple[int, Path]] = []
        for folder in sorted(self._run_dir.glob("tokens/domain=*")):
            parts = [p for p in _files.parts(folder) if p.name > self._last.get(folder.name, "")]
            times = accumulate((path.stat().st_mtime_ns for path in parts), max)
            found.extend(zip(times, parts, strict=True))
        return [path for _, path in sorted(found)]

    def _count(self, path: Path, seen: Mapping[str, int]) -> int:
        """Take note of a file; how many of its rows are new."""
        file = _files.open_parquet(path)
        shape = (self._shape.num_layers, self._shape.num_experts, self._shape.top_k)
        try:
            meta = _files.file_metadata(file)
            found = tuple(meta.get(name) for name in ("num_layers", "num_experts", "top_k"))
            dropped = _files.file_figures(file).get("dropped_rows", 0)
            new = _files.rows_from(file, seen)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = _files.one_line(error)
            raise TraceError(f"{path}: its footer is not a trace's: {problem}") from None
        if found != shape:
            raise TraceError(f"{path}: expected layers, experts and choices {shape}, got {found}")
        self.dropped += dropped
        return new

    def _rows(self, file: pq.ParquetFile) -> npt.NDArray[np.void]:
        if file.num_row_groups == 0:
            return np.zeros(0, row_dtype(self._shape))
        columns = ["request_id", "position", "token_id", "phase", "experts"]
        with _files.reading(self._run_dir):
            # A part's last row group; of one that someone else wrote, that is enough to go on.
            table = file.read_row_group(file.num_row_groups - 1, columns=columns)
        rows = np.zeros(len(table), row_dtype(self._shape))
        if not len(table):
            return rows
        rows["request"] = _by_name(table["request_id"], request_number)
        rows["position"] = table["position"].to_numpy()
        rows["token_id"] = table["token_id"].to_numpy()
        rows["phase"] = _by_name(table["phase"], _phase_number)
        width = (len(table), self._shape.num_layers, self._shape.top_k)
        experts = table["experts"].combine_chunks().flatten().to_numpy().reshape(width)
        if experts.size and experts.max() >= self._shape.num_experts:
            raise TraceError(
                f"{self._run_dir}: expert {experts.max()}, "
                f"but num_experts is {self._shape.num_experts}"
            )
        rows["experts"] = experts
        return rows


def _phase_number(name: str) -> int:
    if name not in PHASES:
        raise TraceError(f"phase: expected one of {', '.join(PHASES)}, got {name!r}")
    return PHASES.index(name)


def _by_name(column: pa.ChunkedArray, number: Any) -> npt.NDArray[np.int64]:
    """`number` of each row's string, worked out once per different one."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries().combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    numbers = np.array([number(name) for name in array.dictionary.to_pylist()], np.int64)
    taken: npt.NDArray[np.int64] = numbers[array.indices.to_numpy(zero_copy_only=False)]
    return taken
