"""Files of a run: where they lie, atomic writing, reading with one-line errors."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from routestats.errors import RouteStatsError, TraceError, did_you_mean
from routestats.schema import (
    DEFAULT_DOMAIN,
    FEED_FILE,
    LOCK_FILE,
    METADATA_KEY,
    READABLE_VERSIONS,
    RUN_FILE,
    LookaheadLayout,
    is_domain,
    request_schema,
)
from routestats.shape import RouteShape

_TEMPORARY = ".tmp-"


def domain_dir(run_dir: Path, domain: str) -> Path:
    return run_dir / "tokens" / f"domain={domain}"


def domain_of_file(path: Path) -> str:
    folder = path.parent
    return _domain_of_folder(folder) if folder.name.startswith("domain=") else DEFAULT_DOMAIN


def _domain_of_folder(folder: Path) -> str:
    domain = folder.name.removeprefix("domain=")
    if not is_domain(domain):
        shown = str(folder.parent).encode("utf-8", "backslashreplace").decode()
        raise TraceError(f"{shown}: {folder.name!r}: its name holds no legal domain")
    return domain


def parts(folder: Path) -> list[Path]:
    """The finished files of a folder, in the order of their numbers."""
    return sorted(folder.glob("part-*.parquet"))


def token_files(run_dir: Path) -> dict[str, list[Path]]:
    """The finished files of each domain that has some.

    Raises
    ------
    TraceError
        If a folder of files is named after what is no domain, see `is_domain`.
    """
    folders = sorted((run_dir / "tokens").glob("domain=*"))
    return {_domain_of_folder(folder): some for folder in folders if (some := parts(folder))}


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


def check_folder(run_dir: Path) -> None:
    """Raise `TraceError` if there is no such folder."""
    if run_dir.is_file():
        raise TraceError(f"{run_dir}: expected a run's folder, with its {RUN_FILE}, got a file")
    if not run_dir.is_dir():
        runs = [file.parent.name for file in run_dir.parent.glob(f"*/{RUN_FILE}")]
        raise TraceError(f"{run_dir}: no such folder{did_you_mean(run_dir.name, runs)}")


def read_run_file(run_dir: Path) -> dict[str, Any]:
    """Contents of ``run.json``; `TraceError` if the folder is no run that can be read."""
    path = run_dir / RUN_FILE
    check_folder(run_dir)
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


def description(
    run_dir: Path, info: dict[str, Any]
) -> tuple[RouteShape, tuple[int, ...], LookaheadLayout | None]:
    """Shape, layer ids and lookahead of a run, from the contents of its ``run.json``."""
    try:
        shape = RouteShape(**info["shape"])
        layer_ids = tuple(int(i) for i in info["layer_ids"])
        return shape, layer_ids, LookaheadLayout.from_dict(info.get("lookahead"))
    except (KeyError, TypeError, ValueError, RouteStatsError) as error:
        raise TraceError(
            f"{run_dir / RUN_FILE}: expected a run's description: {type(error).__name__}: {error}"
        ) from None


def read_requests(run_dir: Path) -> pa.Table:
    """The records of a run's requests, see `request_schema`."""
    tables = []
    for path in parts(run_dir / "requests"):
        with reading(path):
            tables.append(open_parquet(path).read().cast(request_schema()))
    return pa.concat_tables(tables) if tables else request_schema().empty_table()


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
