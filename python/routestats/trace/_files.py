"""Files of a run: names, atomic writing, reading with one-line errors."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from routestats.errors import TraceError
from routestats.schema import FEED_FILE, LOCK_FILE, METADATA_KEY, READABLE_VERSIONS, RUN_FILE

FILE_KEY = b"routestats.file"
"""Key of a file's own figures (rows, dropped rows) in its Parquet footer."""
CAPTURE_KEY = b"routestats.capture"
"""Key of what tells a file's rows from all others: the capture's id, and their numbers in it."""

_TEMPORARY = ".tmp-"


def domain_dir(run_dir: Path, domain: str) -> Path:
    return run_dir / "tokens" / f"domain={domain}"


def domain_of_file(path: Path) -> str:
    name = path.parent.name
    return name.removeprefix("domain=") if name.startswith("domain=") else "default"


def parts(folder: Path) -> list[Path]:
    """The finished files of a folder, in the order of their numbers."""
    return sorted(folder.glob("part-*.parquet"))


def remove_temporaries(run_dir: Path) -> None:
    """Remove what a killed writer left: what is half-written, and its feed."""
    with suppress(OSError):  # a run can do without a feed
        (run_dir / FEED_FILE).unlink(missing_ok=True)
    for path in run_dir.rglob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), type(error).__name__)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a whole file under another name, force it to disk, and rename it into place.

    Raises
    ------
    TraceError
        If that fails; then nothing of it is left.
    """
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, pa.ArrowException) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise TraceError(f"{path}: cannot be written: {one_line(error)}") from None


def write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_run_file(run_dir: Path) -> dict[str, Any]:
    """Contents of ``run.json``; `TraceError` if the folder is no run that can be read."""
    path = run_dir / RUN_FILE
    if not run_dir.is_dir():
        raise TraceError(f"{run_dir}: no such folder")
    if not path.is_file():
        raise TraceError(f"{run_dir}: is no run: it has no {RUN_FILE}")
    try:
        info = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read: {one_line(error)}") from None
    if not isinstance(info, dict) or "shape" not in info:
        raise TraceError(f"{path}: expected a run's description, with its shape")
    if info.get("format_version") not in READABLE_VERSIONS:
        raise TraceError(
            f"{path}: expected format version {' or '.join(map(str, READABLE_VERSIONS))}, "
            f"got {info.get('format_version')}"
        )
    return info


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file that routestats wrote; `TraceError` for any other."""
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{path}: cannot be read as Parquet: {one_line(error)}") from None
    if METADATA_KEY not in (file.schema_arrow.metadata or {}):
        raise TraceError(f"{path}: is no trace: its schema lacks routestats' metadata")
    return file


def file_metadata(file: pq.ParquetFile) -> dict[str, Any]:
    """What the schema says of the trace: version, shape, layer ids."""
    meta: dict[str, Any] = json.loads(file.schema_arrow.metadata[METADATA_KEY])
    return meta


def file_figures(file: pq.ParquetFile) -> dict[str, int]:
    """What the writer noted of this file: ``rows`` and ``dropped_rows``."""
    figures: dict[str, int] = json.loads((file.metadata.metadata or {}).get(FILE_KEY, b"{}"))
    return figures


def extend_runs(runs: list[list[int]], first: int, count: int) -> None:
    """Add rows `first` to ``first + count - 1`` to `runs` of ``[first, count]``, in place."""
    if runs and sum(runs[-1]) == first:
        runs[-1][1] += count
    else:
        runs.append([first, count])


def rows_from(file: pq.ParquetFile, seen: Mapping[str, int]) -> int:
    """How many rows of `file`, its last ones, are not among those `seen`.

    Parameters
    ----------
    file : ParquetFile
    seen : mapping of str to int
        By capture, the number of its first row that was not seen. Of a capture that is not in it,
        as of a file that does not say what it is of, nothing was seen.
    """
    text = (file.metadata.metadata or {}).get(CAPTURE_KEY)
    if text is None:
        return int(file.metadata.num_rows)
    about = json.loads(text)
    start = seen.get(about["id"], 0)
    return sum(max(0, first + count - max(first, start)) for first, count in about["runs"])


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one `TraceError`."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{path}: cannot be read: {one_line(error)}") from None


def lock(run_dir: Path) -> BinaryIO:
    """Take the run for one writer; the lock goes with the process, however it ends."""
    path = run_dir / LOCK_FILE
    try:
        file = path.open("ab")
    except OSError as error:
        raise TraceError(f"{run_dir}: cannot be written: {one_line(error)}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise TraceError(f"{run_dir}: another process is writing this run") from None
    return file
