"""The live feed of a run: its newest rows and its totals, for live views and metrics.

A run's Parquet files appear seconds after their rows. The feed is one small file of fixed size,
``live/feed.bin``: a ring in which the newest rows overwrite the oldest. Any number of readers
follow it. A reader that is too slow skips rows and knows how many. The writer removes the file
when the capture ends; a killed writer leaves it there, and its last sign of life tells its age.

Layout: a page with a JSON description, ending in a block of counters; then `capacity` rows of
`row_dtype`. The block begins and ends with one sequence number, and says how many rows the writer
has *reserved* and how many it has *published*, so that a reader can tell what was overwritten
while it was reading (a seqlock). All access is by ``pwrite`` and ``pread``, not by a memory map:
there a file that was cut short would kill the reader, and a full disk the writer.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from routestats.errors import RouteStatsError, TraceError
from routestats.schema import FEED_FILE, RoutingBatch
from routestats.shape import RouteShape
from routestats.trace.files import one_line

_MAGIC = b"RSFEED02"
_PAGE = 16_384
_TARGET_BYTES = 8 << 20
_LEAST_ROWS, _MOST_ROWS = 1_024, 65_536


def feed_path(run_dir: str | Path) -> Path:
    """Path of a run's feed."""
    return Path(run_dir) / FEED_FILE


def row_dtype(shape: RouteShape) -> np.dtype[np.void]:
    """One row: ``request`` (`request_number`), ``position``, ``token_id``, ``phase``, ``experts``.

    ``phase`` is an index into `routestats.schema.PHASES`; ``experts`` has shape [L, K].
    """
    ids = shape.id_dtype
    return np.dtype(
        {
            "names": ["request", "position", "token_id", "phase", "experts"],
            "formats": ["<u4", "<i4", "<i4", "u1", (ids, (shape.num_layers, shape.top_k))],
            "offsets": [0, 4, 8, 12, 16],
            "itemsize": 16 + shape.row_width * ids.itemsize,
        }
    )


def request_number(request_id: str) -> int:
    """A 32-bit hash of a request id, to tell requests apart on a screen."""
    return crc32(request_id.encode())


@lru_cache(maxsize=8)  # the batches of a capture mostly have the requests of the one before
def _numbers_of(request_ids: tuple[str, ...]) -> npt.NDArray[np.uint32]:
    return np.array([request_number(name) for name in request_ids], np.uint32)


FEED_COLUMNS = ("request_id", "position", "token_id", "phase", "experts")
"""What `rows_of_batch` needs of a batch."""


def rows_of_batch(batch: RoutingBatch, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """The rows of a batch as rows of `row_dtype`."""
    rows = np.zeros(len(batch), dtype)
    rows["request"] = _numbers_of(batch.request_ids)[batch.request_index]
    rows["position"] = batch.positions
    rows["token_id"] = batch.token_ids
    rows["phase"] = batch.phase
    rows["experts"] = batch.experts
    return rows


@dataclass(frozen=True, slots=True)
class FeedCounters:
    """The run's totals, up to the last row that is published.

    Attributes
    ----------
    rows, dropped : int
        Of the whole run, earlier captures included.
    waiting : int
        Rows that the engine has handed over and that are not in the feed yet.
    beat_ns : int
        Time of the writer's last sign of life, as by ``time.time_ns``.
    closed : bool
        The feed has ended: no more rows will come.
    illegal_domain_requests : int
        Requests of the whole run whose id named no legal domain.
    """

    rows: int
    dropped: int
    waiting: int
    beat_ns: int
    closed: bool
    illegal_domain_requests: int = 0


# Sequence number, rows reserved, rows published, the counters, sequence number again.
_BLOCK_BYTES = 8 * (3 + len(FeedCounters.__slots__) + 1)
_BLOCK_AT = _PAGE - _BLOCK_BYTES


class FeedWriter:
    """Publishes rows; the newest overwrite the oldest. One thread of one process uses it.

    Parameters
    ----------
    run_dir : path
        A run's folder, which exists.
    shape : RouteShape
    layer_ids : sequence of int, length L
    tokenizer : str, optional
        Folder or hub id of the model's tokenizer.
    capacity : int, optional
        Rows held; by default about 8 MiB of them.

    Raises
    ------
    TraceError
        If the file cannot be written.
    """

    def __init__(
        self,
        run_dir: str | Path,
        shape: RouteShape,
        *,
        layer_ids: Sequence[int],
        tokenizer: str | None = None,
        capacity: int | None = None,
    ) -> None:
        self.path = feed_path(run_dir)
        self.dtype = row_dtype(shape)
        fitting = min(max(_TARGET_BYTES // self.dtype.itemsize, _LEAST_ROWS), _MOST_ROWS)
        self.capacity = capacity or fitting
        self._published = 0
        self._sequence = 0
        self._counters = FeedCounters(0, 0, 0, time.time_ns(), False)
        description = {
            "shape": asdict(shape),
            "layer_ids": [int(i) for i in layer_ids],
            "tokenizer": tokenizer,
            "capacity": self.capacity,
            "row_bytes": self.dtype.itemsize,
        }
        text = json.dumps(description).encode()
        if len(text) > _BLOCK_AT - 16:
            raise TraceError(f"{self.path}: its description takes {len(text)} bytes")
        head = _MAGIC + len(text).to_bytes(8, "little") + text
        # It appears by renaming, so no reader finds half a feed.
        temporary = self.path.with_name(f".tmp-{self.path.name}-{os.getpid()}")
        try:
            self.path.parent.mkdir(exist_ok=True)
            self._file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                size = _PAGE + self.capacity * self.dtype.itemsize
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(self._file, 0, size)
                else:
                    os.ftruncate(self._file, size)
                os.pwrite(self._file, head, 0)
                self._write_block(0)
                temporary.replace(self.path)
            except OSError:
                os.close(self._file)
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be written: {one_line(error)}") from None

    def publish(
        self,
        batches: Sequence[RoutingBatch],
        *,
        rows: int,
        dropped: int,
        waiting: int,
        illegal_domain_requests: int = 0,
    ) -> None:
        """Add the rows of `batches`, and the run's totals; without rows it is a sign of life.

        Parameters
        ----------
        batches : sequence of RoutingBatch
        rows, dropped, waiting, illegal_domain_requests : int
            As in `FeedCounters`, with `batches` included.

        Raises
        ------
        TraceError
            If the file cannot be written.
        """
        try:
            if count := sum(map(len, batches)):
                # Still with the old totals: a reader must not count rows that it cannot have yet.
                self._write_block(self._published + count)
                for batch in batches:
                    self._write_rows(rows_of_batch(batch, self.dtype))
            self._counters = FeedCounters(
                rows, dropped, waiting, time.time_ns(), False, illegal_domain_requests
            )
            self._write_block(self._published)
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be written: {one_line(error)}") from None

    def close(self, *, rows: int, dropped: int, illegal_domain_requests: int = 0) -> None:
        """Tell readers that the feed has ended, and remove the file."""
        if self._file < 0:
            return
        self._counters = FeedCounters(
            rows, dropped, 0, time.time_ns(), True, illegal_domain_requests
        )
        with contextlib.suppress(OSError):  # the run is complete without it
            self._write_block(self._published)
        file, self._file = self._file, -1
        with contextlib.suppress(OSError):
            os.close(file)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()

    def _write_rows(self, rows: npt.NDArray[np.void]) -> None:
        published = self._published + len(rows)
        rows = rows[-self.capacity :]
        first = (published - len(rows)) % self.capacity
        before_end = min(len(rows), self.capacity - first)
        for part, place in ((rows[:before_end], first), (rows[before_end:], 0)):
            if len(part):
                _write_all(
                    self._file, part.view(np.uint8).data, _PAGE + place * self.dtype.itemsize
                )
        self._published = published  # only now: half a batch does not count

    def _write_block(self, reserved: int) -> None:
        self._sequence += 1
        ends = self._sequence
        block = [ends, reserved, self._published, *map(int, astuple(self._counters)), ends]
        _write_all(self._file, np.array(block, "<u8").tobytes(), _BLOCK_AT)


class FeedReader:
    """Follows a feed from the oldest row that is still in it.

    Parameters
    ----------
    run_dir : path

    Attributes
    ----------
    position : int
        Rows of this feed that were read or skipped: the number of the next row.
    shape : RouteShape
    layer_ids : tuple of int
    tokenizer : str or None
    capacity : int

    Raises
    ------
    TraceError
        If there is no feed, or it is damaged.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.path = feed_path(run_dir)
        self.position = 0
        try:
            self._file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be read: {one_line(error)}") from None
        try:
            self._describe(os.pread(self._file, _PAGE, 0))
            self._block()
        except TraceError:
            self.close()
            raise

    def _describe(self, page: bytes) -> None:
        try:
            if page[:8] != _MAGIC:
                raise ValueError("not a feed")
            length = int.from_bytes(page[8:16], "little")
            description: dict[str, Any] = json.loads(page[16 : 16 + length])
            self.shape = RouteShape(**description["shape"])
            self.layer_ids = tuple(int(i) for i in description["layer_ids"])
            self.tokenizer: str | None = description["tokenizer"]
            self.capacity = int(description["capacity"])
            self.dtype = row_dtype(self.shape)
            size = os.fstat(self._file).st_size
            if self.capacity < 1 or size != _PAGE + self.capacity * self.dtype.itemsize:
                raise ValueError("of another size than it says")
        except (ValueError, KeyError, TypeError, RouteStatsError) as error:
            raise TraceError(f"{self.path}: is damaged: {one_line(error)}") from None

    def read(self, limit: int | None = None) -> tuple[npt.NDArray[np.void], int, FeedCounters]:
        """Rows since the last call.

        Parameters
        ----------
        limit : int, optional
            Take at most this many, the newest.

        Returns
        -------
        rows : structured ndarray of `row_dtype`
        skipped : int
            Rows since the last call that were overwritten or beyond `limit`.
        counters : FeedCounters

        Raises
        ------
        TraceError
            If the file is damaged.
        """
        _, end, counters = self._block()
        most = self.capacity if limit is None else min(limit, self.capacity)
        start = max(self.position, end - most)
        rows = self._rows(start, end)
        reserved, _, _ = self._block()  # some rows may have been overwritten while they were read
        lost = min(max(reserved - self.capacity - start, 0), len(rows))
        rows = rows[lost:]
        skipped = start + lost - self.position
        self.position = end
        experts = rows["experts"]
        if experts.size and int(experts.max()) >= self.shape.num_experts:
            raise TraceError(
                f"{self.path}: is damaged: expert {int(experts.max())}, "
                f"but num_experts is {self.shape.num_experts}"
            )
        return rows, skipped, counters

    @property
    def closed(self) -> bool:
        """Whether the feed has ended. Raises `TraceError` if the file is damaged."""
        return self._block()[2].closed

    @property
    def replaced(self) -> bool:
        """Whether the run has another feed now, or none."""
        try:
            return not os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            return True

    def close(self) -> None:
        """Close the file; may be called any number of times."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> FeedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, start: int, end: int) -> npt.NDArray[np.void]:
        pieces = []
        while start < end:
            place = start % self.capacity
            count = min(end - start, self.capacity - place)
            size = count * self.dtype.itemsize
            data = os.pread(self._file, size, _PAGE + place * self.dtype.itemsize)
            if len(data) != size:
                raise TraceError(f"{self.path}: is damaged: it was cut short")
            pieces.append(np.frombuffer(data, self.dtype))
            start += count
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)

    def _block(self) -> tuple[int, int, FeedCounters]:
        for _ in range(1_000):
            data = os.pread(self._file, _BLOCK_BYTES, _BLOCK_AT)
            if len(data) != _BLOCK_BYTES:
                raise TraceError(f"{self.path}: is damaged: it was cut short")
            sequence, reserved, published, *rest, again = np.frombuffer(data, "<u8").tolist()
            if sequence == again:
                rows, dropped, waiting, beat_ns, closed, illegal = rest
                counters = FeedCounters(rows, dropped, waiting, beat_ns, bool(closed), illegal)
                return reserved, published, counters
        raise TraceError(f"{self.path}: is damaged: its counters change all the time")


def _write_all(file: int, data: bytes | memoryview, place: int) -> None:
    written = os.pwrite(file, data, place)
    if written != len(data):
        raise OSError(f"{written} of {len(data)} bytes written")
